//! Config, telemetry, health, shutdown and supervision; knows no event.
