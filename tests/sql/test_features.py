from tests.sql.shop import Shop
def test_x(shop: Shop) -> None:
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 2)")
    shop.drain()
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 2)")
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 2)")
    shop.drain()
    for r in shop.execute("select * from dynrec.features"): print(r)
    for r in shop.execute("select * from dynrec.item_features_at('shop', '1')"): print(r)
    for r in shop.execute("select * from dynrec.user_features_at('shop', 'u')"): print(r)
    for r in shop.execute("select * from dynrec.training_examples('shop', '-infinity', 'infinity')"): print(r)
    for r in shop.execute("select * from dynrec.training_examples('shop', '-infinity', 'infinity', true)"): print(r)
