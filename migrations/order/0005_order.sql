-- What happened to each order, from the topics of all three services: a projection (law 6), for people who ask, and read by no decision.
-- To rebuild it, delete the positions of the reader `timeline`.
create table timeline (
    order_id    uuid        not null,
    -- which published it
    service     text        not null,
    -- its number in the topic-partition, so that what is read again is there once
    number      bigint      not null,
    type        text        not null,
    recorded_at timestamptz not null,

    constraint timeline_pkey primary key (order_id, service, number)
);
