-- Under which terms a call was made: its price depends on them, and where a call is reported in pieces, the piece that says
-- so need not be the one that states the tokens.
ALTER TABLE {database}.events
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String) DEFAULT '' COMMENT 'Service tier of the call as the record states it (batch, flex, priority, fast); empty for the standard one.' AFTER price_version,
    ADD COLUMN IF NOT EXISTS inference_geo LowCardinality(String) DEFAULT '' COMMENT 'Place where the call was served, where that was chosen; empty otherwise.' AFTER service_tier
