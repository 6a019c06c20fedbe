-- The list of those that were cancelled, which are few among many that were confirmed.
create index if not exists orders_cancelled on orders (placed_at desc, order_id desc) where status = 'cancelled';
