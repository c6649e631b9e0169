-- Takes rows as events does, with its columns and constraints, and keeps none: what it refuses is refused for its data
-- (INV-8). The aggregator makes it anew before it asks, so that it is in step with whatever was altered since.
CREATE TABLE IF NOT EXISTS {database}.events_probe
AS {database}.events
ENGINE = Null
COMMENT 'Internal, always empty: asked which rows events would refuse.'
