-- Lists of orders, the newest first: a customer's, everybody's, and those that are open, which are few.
create index orders_of_customer on orders (customer, placed_at desc, order_id desc);
create index orders_by_time on orders (placed_at desc, order_id desc);
create index orders_open on orders (placed_at desc, order_id desc) where status = 'open';
