-- The inventory service's own state: the fold of its topic `inventory`, and of nothing else (law 6).

create table reservations (
    order_id uuid  not null,
    status   text  not null,
    -- [{sku, quantity}] that were taken: what a cancel puts back. Only ever read and written whole
    lines    jsonb not null,
    -- why it failed
    reason   text,

    constraint reservations_pkey primary key (order_id),
    constraint reservations_status_known check (status in ('taken', 'failed', 'restored')),
    constraint reservations_reason_when_failed check ((status = 'failed') = (reason is not null))
);

-- Shared by all orders. Events of several partitions change a row, and when a database is made anew they are folded
-- partition by partition: a quantity may be below zero halfway, so nothing here says that it must not. Whether there was
-- enough was decided once, under the row's lock.
create table stock (
    sku      text   not null,
    received bigint not null,
    on_hand  bigint not null,
    taken    bigint not null,

    constraint stock_pkey primary key (sku)
)
-- room on the page for the next version of a row that changes with every order, and no index to be told of it
with (fillfactor = 60);

-- What came in, so that a retry is answered alike and counts nothing.
create table receipts (
    receipt_id   uuid   not null,
    sku          text   not null,
    quantity     bigint not null,
    -- tells a retry from another request under the same Idempotency-Key
    request_hash text   not null,

    constraint receipts_pkey primary key (receipt_id)
);
