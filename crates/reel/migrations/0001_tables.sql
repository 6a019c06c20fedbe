-- The toolkit's tables, in the schema reel. The toolkit creates the schema and applies this file.

-- Empty after crash recovery, promotion or a base backup, because it is unlogged; the first session to
-- find it empty fills it.
create unlogged table reel.server_run (
    only_row boolean not null default true,
    id uuid not null,
    constraint server_run_pkey primary key (only_row),
    constraint server_run_only_row check (only_row)
);

-- One row a lane. The lease says who should work; the token, new each time the lane is acquired, says
-- whose writes count.
create table reel.lanes (
    partition integer not null,
    token uuid,
    run text,
    owner text,
    lease_until timestamptz,
    constraint lanes_pkey primary key (partition)
);

-- The database epoch: it changes whenever the database may have gone back in time. A token belongs to
-- the epoch in which it was taken. Null while server_run is empty, so that every comparison with it
-- fails.
create function reel.run() returns text language sql stable as $$
    select extract(epoch from pg_postmaster_start_time())::text
        || '/' || (select oid from pg_database where datname = current_database())
        || '/' || 'reel.lanes'::regclass::oid
        || '/' || (select id from reel.server_run)
$$;

-- One row an instance that lives. The incarnation, new at each start, tells two processes of one instance id apart.
create table reel.replicas (
    instance_id text not null,
    incarnation uuid not null,
    lease_until timestamptz not null,
    constraint replicas_pkey primary key (instance_id)
);

-- The next number of each partition of the own topic. The lock on this row is what makes numbers follow commits.
create table reel.heads (
    partition integer not null,
    next_seq bigint not null,
    opened_run text,
    constraint heads_pkey primary key (partition)
);

-- How far each partition of the own topic is known to hold our events: the next number and offset, and the generation.
create table reel.cursors (
    partition integer not null,
    token uuid,
    run text,
    seq bigint not null,
    "offset" bigint not null,
    generation bigint not null,
    -- ce_id of the reel.opened at the generation's offset: another one there means that the topic was made anew
    opened_id uuid,
    constraint cursors_pkey primary key (partition)
);

-- How far each input was consumed, by the service or by a projection (reader): what is expected next.
create table reel.positions (
    reader text not null,
    topic text not null,
    partition integer not null,
    token uuid,
    run text,
    next_offset bigint not null,
    next_seq bigint not null,
    generation bigint not null,
    opened_id uuid,
    constraint positions_pkey primary key (reader, topic, partition)
);

-- Every event of this service that its database has numbered. Insert-only: no row is ever updated.
create table reel.outbox (
    partition integer not null,
    seq bigint not null,
    event_id uuid not null,
    key text not null,
    type text not null,
    payload bytea not null,
    headers jsonb not null,
    -- the number of the step and the place in its batch: a valid serial order of all decisions of the service
    step bigint not null,
    place integer not null,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint outbox_pkey primary key (partition, seq)
);

create sequence reel.decided;

create table reel.deadlines (
    partition integer not null,
    key text not null,
    name text not null,
    due_at timestamptz not null,
    command jsonb not null,
    constraint deadlines_pkey primary key (key, name)
);
create index deadlines_due on reel.deadlines (partition, due_at);

-- Messages that are parked, and those of the same key that wait behind them, in order (nth). Their bytes stay in the input.
create table reel.parked (
    partition integer not null,
    key text not null,
    topic text not null,
    generation bigint not null,
    number bigint not null,
    "offset" bigint not null,
    type text not null,
    reason text not null,
    nth bigint generated always as identity,
    constraint parked_pkey primary key (topic, partition, generation, number)
);
create index parked_key on reel.parked (partition, key);

-- What could not be handled, for the operator. An input is named by where it lies; a deadline by its key and name.
create table reel.dead_letters (
    id uuid not null,
    partition integer not null,
    topic text,
    generation bigint,
    number bigint,
    "offset" bigint,
    key text,
    type text,
    command jsonb,
    reason text not null,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint dead_letters_pkey primary key (id),
    constraint dead_letters_once unique (topic, partition, "offset")
);
