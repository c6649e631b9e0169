-- Facts: price tables that an operator had applied to calls after the fact (fleetlog reprice). The events keep the cost that
-- was computed when they arrived; every derivation of a call, now and later, takes the last of these that it falls under
-- and that has a price for it. A row holds the tables themselves, so that what a call costs never depends on which
-- configuration derived it last.
CREATE TABLE IF NOT EXISTS {database}.repricings
(
    repriced_at   DateTime64(9, 'UTC')      COMMENT 'When. Of several that a call falls under, the last that has a price counts.',
    project_id    String                    COMMENT 'Project; empty for all.',
    model         String                    COMMENT 'Model, where * stands for any text.',
    from_time     DateTime64(9, 'UTC')      COMMENT 'Calls from this time on',
    until_time    DateTime64(9, 'UTC')      COMMENT 'until before this one.',
    versions      Array(String)             COMMENT 'Versions of the tables, the preferred one first.',
    sheets        Array(String)             COMMENT 'The tables, TOML.' CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY repriced_at
COMMENT 'Facts: price tables applied to calls after the fact. Operators only.'
