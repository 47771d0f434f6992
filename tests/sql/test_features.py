from tests.sql.shop import Shop


def test_x(shop: Shop) -> None:
    shop.execute("insert into shop.events (user_id, item_id) values ('u', 1)")
    shop.drain()
    for r in shop.execute("select * from dynrec._feature_names(1)"):
        print(r)
    for r in shop.execute("select * from dynrec._item_features(1, null, null)"):
        print(r)
    for r in shop.execute("select * from dynrec._item_features(1, '{1,2}', null)"):
        print(r)
