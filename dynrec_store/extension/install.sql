do $$
begin
  if to_regnamespace('dynrec_data') is not null then
    raise exception 'this database has dynrec already, by dynrec migrate'
      using errcode = 'duplicate_object', hint = 'Go on with dynrec migrate; or dynrec migrate downgrade base, which removes every recommender, and then create extension dynrec.';
  end if;
end
$$;
create schema dynrec_data;
