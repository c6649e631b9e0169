-- Which sightings a call merges, and what was guessed about it.
ALTER TABLE {database}.session_groups
    ADD COLUMN IF NOT EXISTS calls.guess Array(LowCardinality(String)) CODEC(ZSTD(1)) AFTER calls.guessed,
    ADD COLUMN IF NOT EXISTS calls.event_ids Array(Array(String)) CODEC(ZSTD(1)) AFTER calls.guess,
    ADD COLUMN IF NOT EXISTS tools.guess Array(LowCardinality(String)) CODEC(ZSTD(1)) AFTER tools.guessed,
    ADD COLUMN IF NOT EXISTS tools.event_ids Array(Array(String)) CODEC(ZSTD(1)) AFTER tools.guess
