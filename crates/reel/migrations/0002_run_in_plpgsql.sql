-- The same function, in plpgsql: its plan is kept for the session, where that of a function in SQL is made at every call (0.1 ms, three
-- times a step).
create or replace function reel.run() returns text language plpgsql stable as $$
begin
    return (
        select extract(epoch from pg_postmaster_start_time())::text
            || '/' || (select oid from pg_database where datname = current_database())
            || '/' || 'reel.lanes'::regclass::oid
            || '/' || (select id from reel.server_run)
    );
end
$$;
