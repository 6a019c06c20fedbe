-- The ledger's own state: a row for each note.
create table notes (
    order_id uuid not null,
    length bigint not null,
    constraint notes_pkey primary key (order_id)
);
