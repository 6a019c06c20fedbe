-- The payment service's own state: the fold of its topic `payments`, and of nothing else (law 6).

create table payments (
    order_id uuid   not null,
    customer text   not null,
    -- in minor units of the currency
    amount   bigint not null,
    currency text   not null,
    status   text   not null,
    -- why it failed
    reason   text,

    constraint payments_pkey primary key (order_id),
    constraint payments_status_known check (status in ('completed', 'failed', 'refunded')),
    constraint payments_reason_when_failed check ((status = 'failed') = (reason is not null))
);

-- Shared by all orders of a customer. Events of several partitions change a row, and when a database is made anew they are
-- folded partition by partition: a balance may be below zero halfway, so nothing here says that it must not. Whether there
-- was enough was decided once, under the row's lock.
create table accounts (
    customer  text   not null,
    -- of all amounts of the account, in minor units
    currency  text   not null,
    deposited bigint not null,
    balance   bigint not null,

    constraint accounts_pkey primary key (customer)
)
-- room on the page for the next version of a row that changes with every order, and no index to be told of it
with (fillfactor = 60);

-- What was paid in, so that a retry is answered alike and credits nothing.
create table deposits (
    deposit_id   uuid   not null,
    customer     text   not null,
    amount       bigint not null,
    currency     text   not null,
    -- tells a retry from another request under the same Idempotency-Key
    request_hash text   not null,

    constraint deposits_pkey primary key (deposit_id)
);
