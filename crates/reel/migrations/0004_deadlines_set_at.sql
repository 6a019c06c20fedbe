-- When a deadline was first set: since then its saga is open. Of those that are there already, when this was applied. The default is not
-- volatile, so the table is not rewritten; an old binary, which does not name the column, gets it too.
alter table reel.deadlines add column set_at timestamptz not null default now();
