-- The probe of settlements; see events_probe.
CREATE TABLE IF NOT EXISTS {database}.settlements_probe
AS {database}.settlements
ENGINE = Null
COMMENT 'Internal, always empty: asked which rows settlements would refuse.'
