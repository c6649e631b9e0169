-- The probe of piece_settlements; see events_probe.
CREATE TABLE IF NOT EXISTS {database}.piece_settlements_probe
AS {database}.piece_settlements
ENGINE = Null
COMMENT 'Internal, always empty: asked which rows piece_settlements would refuse.'
