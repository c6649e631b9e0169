-- The probe of dead_letters; see events_probe.
CREATE TABLE IF NOT EXISTS {database}.dead_letters_probe
AS {database}.dead_letters
ENGINE = Null
COMMENT 'Internal, always empty: asked which rows dead_letters would refuse.'
