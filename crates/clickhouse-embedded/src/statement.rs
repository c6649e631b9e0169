//! One request's statement, run to its end on a thread of its own.
//!
//! A request becomes a [`Statement`] once enough of its body is there to tell an insert's head from its data. Then: a
//! connection with the request's database and settings, the gate, and one of three ways to run it. A SELECT in a format
//! that can be joined is streamed; an INSERT with data feeds the engine's insert stream (an inline INSERT would be cut at
//! the first blank line); anything else runs as a whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::body::{Body, RawBody};
use crate::engine::Host;
use crate::error::{Code, ServerError};
use crate::ffi::{Counters, Session, StatementClass};
use crate::format::{Envelope, Joiner};
use crate::gate;
use crate::metrics;
use crate::reply::ReplyWriter;
use crate::request::Request;
use crate::running::Ticket;
use crate::sql::Shape;

/// ClickHouse's code for a database that does not exist.
const UNKNOWN_DATABASE: u32 = 81;

/// Longest statement, without an insert's data.
const MAX_SQL_BYTES: usize = 16 << 20;

/// How much of an insert's data is handed over at once.
const APPEND_BYTES: usize = 256 << 10;

/// Settings that let formats run code which stands in strings; off wherever a statement brings no rows of its own.
const CODE_IN_STRINGS: [&str; 3] = [
    "input_format_defaults_for_omitted_fields",
    "input_format_values_deduce_templates_of_expressions",
    "input_format_values_interpret_expressions",
];

/// What bounds a statement.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// The database that unqualified names mean when the request names none.
    pub(crate) default_database: String,
    /// The time limit of a query that sets none.
    pub(crate) default_seconds: u64,
    /// The largest result that is kept whole.
    pub(crate) max_result_bytes: usize,
    /// The largest body, unpacked.
    pub(crate) max_body_bytes: u64,
}

/// Whether the client still wants the answer.
pub(crate) struct Interest {
    mark: String,
    gone: AtomicBool,
    cancellable: AtomicBool,
}

impl Interest {
    /// A client that waits for a query with this mark.
    pub(crate) fn new(mark: String) -> Self {
        Self { mark, gone: AtomicBool::new(false), cancellable: AtomicBool::new(false) }
    }

    /// Notes that the client has gone; gives the mark of a query that may be cancelled.
    pub(crate) fn lose(&self) -> Option<&str> {
        self.gone.store(true, Ordering::SeqCst);
        self.cancellable.load(Ordering::SeqCst).then_some(self.mark.as_str())
    }

    /// Notes that the statement only reads, so that nothing is lost when it is cancelled.
    fn allow_cancelling(&self) -> Result<(), ServerError> {
        self.cancellable.store(true, Ordering::SeqCst);
        if self.gone.load(Ordering::SeqCst) {
            return Err(ServerError::new(Code::QueryWasCancelled, "The client has gone"));
        }
        Ok(())
    }
}

/// A statement, apart from an insert's data.
struct Statement {
    sql: Vec<u8>,
    shape: Shape,
}

/// Runs a request's statement and answers it.
pub(crate) fn run(
    host: &Host,
    limits: &Limits,
    request: &Request,
    body: RawBody,
    interest: &Interest,
    ticket: &Ticket,
    mut reply: ReplyWriter,
) {
    let began = Instant::now();
    let outcome = Body::new(body, request, limits.max_body_bytes)
        .and_then(|mut body| execute(host, limits, request, &mut body, interest, ticket, &mut reply));
    if let Err(error) = &outcome {
        report(&request.query_id, error);
    }
    let code = outcome.as_ref().err().map_or(0, ServerError::code);
    if reply.finish(outcome).is_err() {
        tracing::debug!(query_id = request.query_id, "the client has gone before its answer");
    }
    metrics::STATEMENTS.add_for("code", code.to_string(), 1);
    metrics::SECONDS.record(began.elapsed().as_secs_f64());
}

fn report(query_id: &str, error: &ServerError) {
    let level = error.class().log_level();
    if level == tracing::Level::ERROR {
        tracing::error!(query_id, %error, "statement failed");
    } else if level == tracing::Level::WARN {
        tracing::warn!(query_id, %error, "statement failed");
    } else {
        tracing::debug!(query_id, %error, "statement failed");
    }
}

fn execute(
    host: &Host,
    limits: &Limits,
    request: &Request,
    body: &mut Body,
    interest: &Interest,
    ticket: &Ticket,
    reply: &mut ReplyWriter,
) -> Result<Counters, ServerError> {
    let statement = Statement::read(request, body)?;
    gate::admit_params(&request.params, statement.code())?;
    gate::admit_settings(&request.settings)?;
    let mut session = host.connect()?;
    prepare(&mut session, limits, request, &statement.shape)?;
    let analysis = session.classify(statement.code())?;
    gate::admit(analysis, statement.code(), &statement.shape)?;
    gate::admit_confined(&request.settings, request.database.as_deref(), analysis.class, statement.code())?;
    if analysis.class == StatementClass::Unknown {
        return Err(why_not_parsed(&mut session, &statement.sql, &statement.shape));
    }
    match &statement.shape {
        Shape::InsertData { format, data, head } => {
            ticket.is_a("insert");
            let (sql, mut first) = (&statement.sql[..*head], statement.sql[*data..].to_vec());
            if format == "Values" {
                // Rows of VALUES are expressions, so they pass the gate as a whole.
                read_sql(body, &mut first, |_| false)?;
                gate::admit_rows(&first)?;
                gate::admit_params(&request.params, &first)?;
                if !request.params.is_empty() {
                    // The insert stream knows no parameters inside of the rows.
                    let whole = [&statement.sql[..*data], &first].concat();
                    return session
                        .query(&whole, "TabSeparated", &request.params)
                        .map(|output| output.counters);
                }
            }
            insert(&mut session, sql, format, request, &first, body)
        }
        shape => {
            ticket.is_a("query");
            let mut sql = statement.sql.clone();
            if matches!(shape, Shape::Select { .. }) {
                interest.allow_cancelling()?;
                // Found again in `system.processes` when the client goes: the engine's query ids are its own.
                sql.extend_from_slice(format!("\n/*{}*/", interest.mark).as_bytes());
            }
            answer(&mut session, &sql, shape, request, reply)
        }
    }
}

impl Statement {
    /// Reads as much of the body as belongs to the statement.
    fn read(request: &Request, body: &mut Body) -> Result<Self, ServerError> {
        let mut sql = request.sql.clone().into_bytes();
        let shape = Shape::of(&sql);
        if matches!(shape, Shape::InsertData { .. }) {
            return Ok(Self { sql, shape });
        }
        if !sql.is_empty() {
            sql.push(b'\n');
        }
        read_sql(body, &mut sql, |text| {
            // Something must follow the data's beginning, or the format's name may go on.
            matches!(Shape::of(text), Shape::InsertData { data, .. } if data < text.len())
        })?;
        let shape = Shape::of(&sql);
        Ok(Self { sql, shape })
    }

    /// The statement without an insert's data.
    fn code(&self) -> &[u8] {
        match &self.shape {
            Shape::InsertData { data, .. } => &self.sql[..*data],
            _ => &self.sql,
        }
    }
}

/// Reads statement text until `enough` says so or the body ends.
fn read_sql(body: &mut Body, sql: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> Result<(), ServerError> {
    let mut buffer = vec![0_u8; 64 << 10];
    let mut look_at = 0;
    loop {
        let count = body.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        sql.extend_from_slice(&buffer[..count]);
        // Looked at only when it has doubled: the look itself reads the whole text.
        if sql.len() >= look_at {
            if enough(sql) {
                return Ok(());
            }
            look_at = sql.len() * 2;
        }
        if sql.len() > MAX_SQL_BYTES {
            return Err(ServerError::new(
                Code::QueryTooLarge,
                format_args!("The statement is larger than {MAX_SQL_BYTES} bytes"),
            ));
        }
    }
}

fn prepare(
    session: &mut Session,
    limits: &Limits,
    request: &Request,
    shape: &Shape,
) -> Result<(), ServerError> {
    let whole = match shape {
        Shape::Select { format } => !is_streamed(format.as_deref().unwrap_or(&request.default_format)),
        Shape::Empty | Shape::InsertData { .. } | Shape::InsertFile | Shape::Other { .. } => false,
    };
    let mut request = std::borrow::Cow::Borrowed(request);
    if !matches!(shape, Shape::InsertData { .. }) {
        // The table function `format` would run code that stands in its strings.
        for setting in CODE_IN_STRINGS {
            request.to_mut().settings.push((setting.to_owned(), "0".to_owned()));
        }
    }
    let bounded = request.settings.iter().any(|(name, _)| name == "max_result_bytes");
    if whole && !bounded {
        // The engine builds this result in memory, where only the engine itself can bound it.
        let settings = &mut request.to_mut().settings;
        settings.push(("max_result_bytes".to_owned(), limits.max_result_bytes.to_string()));
        settings.push(("result_overflow_mode".to_owned(), "throw".to_owned()));
    }
    // Some engine functions retry for minutes. An insert's clock also counts the waiting for its sender, and nothing of an
    // insert's own can hang.
    let seconds = (!matches!(shape, Shape::InsertData { .. })).then_some(limits.default_seconds);
    let statements = request.preparation(&limits.default_database, seconds);
    // One call for all of them: each call costs as much as the statements themselves.
    match session.query(statements.join(";\n").as_bytes(), "TabSeparated", &[]) {
        // The default database was dropped. A server falls back to its own, so that it can be made again.
        Err(error) if error.code() == UNKNOWN_DATABASE && request.database.is_none() => {
            session.query(statements[1..].join(";\n").as_bytes(), "TabSeparated", &[])?;
        }
        prepared => drop(prepared?),
    }
    Ok(())
}

fn is_streamed(format: &str) -> bool {
    Envelope::of(format) != Envelope::Whole
}

/// Asks for the parser's message through the streaming call, which refuses several statements before it runs any.
fn why_not_parsed(session: &mut Session, sql: &[u8], shape: &Shape) -> ServerError {
    let generic = || ServerError::new(Code::SyntaxError, "Syntax error");
    match shape {
        Shape::Empty => ServerError::new(Code::SyntaxError, "Empty query"),
        _ => session.stream(sql, "TabSeparated", &[]).err().unwrap_or_else(generic),
    }
}

fn insert(
    session: &mut Session,
    sql: &[u8],
    format: &str,
    request: &Request,
    first: &[u8],
    body: &mut Body,
) -> Result<Counters, ServerError> {
    let mut stream = session.insert(sql, format, &request.params)?;
    if !first.is_empty() {
        stream.append(first)?;
    }
    let mut buffer = vec![0_u8; APPEND_BYTES];
    loop {
        // An error drops the stream, which cancels the insert.
        let count = body.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        stream.append(&buffer[..count])?;
    }
    stream.finish()
}

fn answer(
    session: &mut Session,
    sql: &[u8],
    shape: &Shape,
    request: &Request,
    reply: &mut ReplyWriter,
) -> Result<Counters, ServerError> {
    let (Shape::Select { format } | Shape::Other { format, .. }) = shape else {
        return Err(ServerError::new(Code::SyntaxError, "Empty query"));
    };
    let default = request.default_format.as_str();
    let format = format.as_deref().unwrap_or(default);
    reply.set_format(format.to_owned());
    let envelope = Envelope::of(format);
    if matches!(shape, Shape::Select { .. }) && envelope != Envelope::Whole {
        match session.stream(sql, default, &request.params) {
            Ok(mut rows) => {
                let mut joiner = Joiner::new(envelope);
                while let Some(chunk) = rows.next()? {
                    reply.write(joiner.rest(&chunk.data)?, chunk.counters)?;
                }
                return Ok(Counters::default());
            }
            // `FROM t INSERT …` and the like begin as a SELECT does.
            Err(error) if error.to_string().contains("Streaming query is not supported") => {}
            Err(error) => return Err(error),
        }
    }
    let output = session.query(sql, default, &request.params)?;
    reply.write(&output.data, output.counters)?;
    Ok(Counters::default())
}
