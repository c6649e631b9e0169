//! Promises of the whole pipeline, all against one running system, each in a project of its own.

mod absurd;
mod drift;
mod failures;
mod isolation;
mod ledger;
mod load;
mod oracles;
mod otlp;
mod send;
mod session;
mod visibility;

use std::process::ExitCode;

use fleetlog_tests::Suite;

/// Adds promises by their paths, which are also their names.
macro_rules! promises {
    ($suite:expr; $($module:ident::$name:ident),+ $(,)?) => {
        $suite$(.promise(concat!(stringify!($module), "::", stringify!($name)), $module::$name))+
    };
}

fn main() -> anyhow::Result<ExitCode> {
    let suite = promises![Suite::new()?;
        absurd::absurd_numbers_stay_out_of_a_sessions_sums,
        drift::a_field_that_nobody_knew_shows_in_the_list_of_formats,
        failures::malformed_json_is_refused_with_its_position_and_nothing_of_it_is_stored,
        failures::a_key_does_what_its_role_allows_and_nothing_else,
        failures::an_oversized_body_is_refused_and_costs_no_memory,
        failures::an_unknown_content_type_or_encoding_is_unsupported,
        failures::an_event_that_nothing_maps_is_kept_as_raw_unknown,
        failures::a_bad_record_costs_itself_only,
        failures::the_disk_of_the_one_machine_run_is_watched,
        isolation::a_projects_key_reads_and_writes_that_project_only,
        ledger::an_event_is_there_for_whoever_presents_its_receipt,
        ledger::every_record_that_was_acknowledged_is_accounted_for,
        load::every_event_of_a_load_is_a_row_and_all_sums_agree,
        oracles::a_claude_code_session_has_its_numbers_from_every_channel_and_from_all,
        oracles::a_codex_session_has_its_numbers_from_every_channel_and_from_all,
        oracles::a_gemini_session_has_its_numbers_from_every_channel_and_from_all,
        otlp::a_real_exporters_protobuf_is_accepted_and_queryable,
        send::an_interrupted_send_continues_and_sends_each_event_once,
        session::the_recorded_session_has_its_known_numbers_however_often_it_arrives,
        session::the_sessions_files_have_its_known_numbers_and_change_none_that_were_there,
        visibility::an_accepted_event_is_soon_visible_to_a_query,
    ];
    Ok(suite.run())
}
