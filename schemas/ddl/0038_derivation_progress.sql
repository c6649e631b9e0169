-- A group that cannot be recomputed holds back its project and no other one.
ALTER TABLE {database}.derivation_progress
    ADD COLUMN IF NOT EXISTS others_offset Int64 DEFAULT derived_offset COMMENT 'The same, of the projects that are not behind.' AFTER derived_offset,
    ADD COLUMN IF NOT EXISTS behind Array(Tuple(String, Int64)) DEFAULT [] COMMENT 'The projects that are behind, because a group of theirs cannot be recomputed: each with the same offset of its own.' AFTER others_offset
