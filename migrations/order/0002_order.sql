-- The order service's own state: the fold of its topic `orders`, and of nothing else (law 6).

create table orders (
    order_id     uuid        not null,
    customer     text        not null,
    -- [{sku, quantity, unit_price}]: only ever read and written whole, so it needs no table of its own
    lines        jsonb       not null,
    -- in minor units of the currency
    total        bigint      not null,
    currency     text        not null,
    placed_at    timestamptz not null,
    -- shown to the customer; what fires is the row in `deadlines`
    settle_by    timestamptz not null,
    -- tells a retry from another request under the same Idempotency-Key
    request_hash text        not null,
    status       text        not null,
    -- why it was cancelled, and more about it for people
    reason       text,
    detail       text,

    constraint orders_pkey primary key (order_id),
    constraint orders_status_known check (status in ('open', 'confirmed', 'cancelled')),
    constraint orders_reason_when_cancelled check ((status = 'cancelled') = (reason is not null))
);
