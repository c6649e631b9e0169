//! The C boundary: libchdb's functions behind safe types.
//!
//! This is the only module of the house with `unsafe`. It loads the shared library, checks that every function that
//! is needed is there, and wraps the engine's handles so that each is used by one thread at a time, is released exactly
//! once, and never outlives what it hangs on. Every string crosses with its length; results are copied out, so nothing
//! of the engine's memory escapes. The library calls nothing back, so no Rust panic can unwind into it.
//!
//! The library is never unloaded: the engine keeps threads of its own until the process ends.
#![expect(unsafe_code, reason = "the one place that talks to the engine's C interface")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;

use libloading::Library;

use crate::error::{ServerError, StartError};

type Connection = *mut c_void;
type Handle = *mut c_void;

/// What `chdb_classify_query_n` fills; its layout is the library's interface.
#[repr(C)]
struct RawAnalysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

type QueryFn = unsafe extern "C" fn(Connection, *const u8, usize, *const u8, usize) -> Handle;
type QueryParamsFn = unsafe extern "C" fn(
    Connection,
    *const u8,
    usize,
    *const u8,
    usize,
    *const *const u8,
    *const usize,
    *const *const u8,
    *const usize,
    usize,
) -> Handle;
type CounterFn = unsafe extern "C" fn(Handle) -> u64;

/// Declares the table of functions and how it is filled from the library.
macro_rules! symbols {
    ($($field:ident: $name:literal as $kind:ty,)*) => {
        struct Symbols { $($field: $kind,)* }

        impl Symbols {
            fn load(library: &Library) -> Result<Self, StartError> {
                Ok(Self { $(
                    // SAFETY: the type is the documented C signature of this function in libchdb 26.7.
                    $field: *unsafe { library.get::<$kind>($name) }
                        .map_err(|_| StartError::LibraryTooOld { symbol: String::from_utf8_lossy($name).into_owned() })?,
                )* })
            }
        }
    };
}

symbols! {
    version: b"chdb_version" as unsafe extern "C" fn() -> *const c_char,
    set_signal_handlers: b"chdb_set_signal_handlers_enabled" as unsafe extern "C" fn(c_int),
    connect: b"chdb_connect" as unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Connection,
    close: b"chdb_close_conn" as unsafe extern "C" fn(*mut Connection),
    query: b"chdb_query_n" as QueryFn,
    query_params: b"chdb_query_with_params_n" as QueryParamsFn,
    stream: b"chdb_stream_query_n" as QueryFn,
    stream_params: b"chdb_stream_query_with_params_n" as QueryParamsFn,
    stream_fetch: b"chdb_stream_fetch_result" as unsafe extern "C" fn(Connection, Handle) -> Handle,
    stream_cancel: b"chdb_stream_cancel_query" as unsafe extern "C" fn(Connection, Handle),
    destroy_result: b"chdb_destroy_query_result" as unsafe extern "C" fn(Handle),
    insert: b"chdb_stream_insert_n" as QueryFn,
    insert_params: b"chdb_stream_insert_with_params_n" as QueryParamsFn,
    insert_append: b"chdb_stream_append" as unsafe extern "C" fn(Handle, *const u8, usize) -> c_int,
    insert_done: b"chdb_stream_done" as unsafe extern "C" fn(Handle) -> Handle,
    insert_error: b"chdb_stream_insert_error" as unsafe extern "C" fn(Handle) -> *const c_char,
    insert_cancel: b"chdb_stream_cancel_insert" as unsafe extern "C" fn(Handle),
    insert_destroy: b"chdb_destroy_insert_stream" as unsafe extern "C" fn(Handle),
    result_error: b"chdb_result_error" as unsafe extern "C" fn(Handle) -> *const c_char,
    result_buffer: b"chdb_result_buffer" as unsafe extern "C" fn(Handle) -> *const u8,
    result_length: b"chdb_result_length" as unsafe extern "C" fn(Handle) -> usize,
    result_rows: b"chdb_result_rows_read" as CounterFn,
    storage_rows: b"chdb_result_storage_rows_read" as CounterFn,
    storage_bytes: b"chdb_result_storage_bytes_read" as CounterFn,
    rows_written: b"chdb_result_rows_written" as CounterFn,
    bytes_written: b"chdb_result_bytes_written" as CounterFn,
    classify: b"chdb_classify_query_n"
        as unsafe extern "C" fn(Connection, *const u8, usize, *const u8, usize, *mut RawAnalysis) -> c_int,
}

/// The loaded library.
pub(crate) struct Engine {
    symbols: Symbols,
}

/// What one call of the engine read and wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Rows of the result itself.
    pub(crate) result_rows: u64,
    /// Rows read from tables.
    pub(crate) read_rows: u64,
    /// Bytes read from tables.
    pub(crate) read_bytes: u64,
    /// Rows written, those of materialized views included.
    pub(crate) written_rows: u64,
    /// Bytes written.
    pub(crate) written_bytes: u64,
}

impl Counters {
    /// Adds what a further chunk of the same query counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.result_rows += other.result_rows;
        self.read_rows += other.read_rows;
        self.read_bytes += other.read_bytes;
        self.written_rows += other.written_rows;
        self.written_bytes += other.written_bytes;
    }
}

/// A result or a part of one, copied out of the engine.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The formatted bytes.
    pub(crate) data: Vec<u8>,
    /// What producing them took.
    pub(crate) counters: Counters,
}

/// What a statement does to state that outlives it, by the engine's own parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatementClass {
    /// SELECT, SHOW, DESCRIBE, EXPLAIN, EXISTS, CHECK.
    ReadOnly,
    /// Changes a database.
    Mutating,
    /// Changes something beside the databases: functions, users, named collections.
    MutatingGlobal,
    /// Changes the session or the engine, or writes outside of it.
    Control,
    /// Did not parse.
    Unknown,
}

/// The engine's judgement of a text before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Analysis {
    /// Executable statements in the text; zero when it does not parse.
    pub(crate) statements: u32,
    /// The most restricted class among them.
    pub(crate) class: StatementClass,
}

/// Query parameters by name, as `{name:Type}` takes them.
pub(crate) type Params = [(String, String)];

impl Engine {
    /// Loads the library and switches its signal handlers off.
    ///
    /// # Errors
    /// The file cannot be loaded, or is too old to have every function.
    pub(crate) fn load(path: &Path) -> Result<&'static Self, StartError> {
        // SAFETY: loading runs the library's initialisers; the file is the pinned engine, named by the operator.
        let library = unsafe { Library::new(path) }
            .map_err(|source| StartError::LibraryUnloadable { path: path.to_owned(), source })?;
        let symbols = Symbols::load(&library)?;
        // Unloading would pull the code from under the engine's own threads.
        std::mem::forget(library);
        // SAFETY: documented to be called before the first connection.
        unsafe { (symbols.set_signal_handlers)(0) };
        Ok(Box::leak(Box::new(Self { symbols })))
    }

    /// Names the library's own version, for example `26.7.3`.
    pub(crate) fn library_version(&self) -> String {
        // SAFETY: returns a static string of the library.
        unsafe { text((self.symbols.version)()) }.unwrap_or_default()
    }

    /// Opens a connection; the first one starts the engine with these arguments.
    pub(crate) fn connect(&'static self, arguments: &[String]) -> Option<Session> {
        let owned: Vec<CString> = std::iter::once("clickhouse")
            .chain(arguments.iter().map(String::as_str))
            .map(|argument| CString::new(argument).unwrap_or_default())
            .collect();
        let mut pointers: Vec<*mut c_char> =
            owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).ok()?;
        // SAFETY: `pointers` holds `count` strings that live until the call returns.
        let connection = unsafe { (self.symbols.connect)(count, pointers.as_mut_ptr()) };
        // SAFETY: a connection that is not NULL points to the engine's handle.
        if connection.is_null() || unsafe { *connection }.is_null() {
            return None;
        }
        Some(Session { engine: self, connection })
    }
}

/// One connection of the engine, with settings of its own.
///
/// # Invariants
/// `connection` is open until drop. The methods that run statements take `&mut self`: a connection runs one at a time.
pub(crate) struct Session {
    engine: &'static Engine,
    connection: *mut Connection,
}

// SAFETY: the engine's connections are not bound to the thread that opened them; `&mut` keeps their use exclusive.
unsafe impl Send for Session {}

impl Session {
    fn raw(&self) -> Connection {
        // SAFETY: INVARIANT of `Session`: the pointer stays valid until `close`.
        unsafe { *self.connection }
    }

    /// Runs one text to its end and returns its whole result.
    ///
    /// # Errors
    /// What the engine reports.
    pub(crate) fn query(&mut self, sql: &[u8], format: &str, params: &Params) -> Result<Output, ServerError> {
        let symbols = &self.engine.symbols;
        let handle = self.call(symbols.query, symbols.query_params, sql, format, params);
        // SAFETY: `handle` came from this library and is released by `take` only.
        unsafe { take(symbols, handle) }
    }

    /// Starts a SELECT whose result is fetched in chunks.
    ///
    /// # Errors
    /// What the engine reports; it refuses anything but one SELECT.
    pub(crate) fn stream(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &Params,
    ) -> Result<RowStream<'_>, ServerError> {
        let symbols = &self.engine.symbols;
        let handle = self.call(symbols.stream, symbols.stream_params, sql, format, params);
        if handle.is_null() {
            return Err(ServerError::no_answer());
        }
        // SAFETY: `handle` is live; its error text is copied before it is released.
        if let Some(message) = unsafe { text((symbols.result_error)(handle)) } {
            // SAFETY: released once, here.
            unsafe { (symbols.destroy_result)(handle) };
            return Err(ServerError::from_engine(&message));
        }
        Ok(RowStream { session: self, handle, open: true })
    }

    /// Starts an insert whose data is appended in pieces; `sql` has neither FORMAT nor data.
    ///
    /// # Errors
    /// What the engine reports.
    pub(crate) fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        params: &Params,
    ) -> Result<InsertStream<'_>, ServerError> {
        let symbols = &self.engine.symbols;
        let handle = self.call(symbols.insert, symbols.insert_params, sql, format, params);
        if handle.is_null() {
            return Err(ServerError::no_answer());
        }
        let stream = InsertStream { engine: self.engine, handle, finished: false, session: PhantomData };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// Asks the engine's parser what a text would do, without running it.
    ///
    /// # Errors
    /// The connection is unusable.
    pub(crate) fn classify(&mut self, sql: &[u8]) -> Result<Analysis, ServerError> {
        let mut raw = RawAnalysis {
            struct_size: size_of::<RawAnalysis>() as u32,
            statement_count: 0,
            flags: 0,
            query_class: 0,
        };
        // SAFETY: the buffers outlive the call, and the engine writes no more than `struct_size` bytes.
        let state = unsafe {
            (self.engine.symbols.classify)(self.raw(), sql.as_ptr(), sql.len(), ptr::null(), 0, &raw mut raw)
        };
        if state != 0 {
            return Err(ServerError::no_answer());
        }
        let class = match raw.query_class {
            0 => StatementClass::ReadOnly,
            1 => StatementClass::Mutating,
            2 => StatementClass::MutatingGlobal,
            3 => StatementClass::Control,
            _ => StatementClass::Unknown,
        };
        Ok(Analysis { statements: raw.statement_count, class })
    }

    fn call(
        &mut self,
        plain: QueryFn,
        bound: QueryParamsFn,
        sql: &[u8],
        format: &str,
        params: &Params,
    ) -> Handle {
        let connection = self.raw();
        if params.is_empty() {
            // SAFETY: both buffers outlive the call.
            return unsafe { plain(connection, sql.as_ptr(), sql.len(), format.as_ptr(), format.len()) };
        }
        let names: Vec<*const u8> = params.iter().map(|(name, _)| name.as_ptr()).collect();
        let name_lengths: Vec<usize> = params.iter().map(|(name, _)| name.len()).collect();
        let values: Vec<*const u8> = params.iter().map(|(_, value)| value.as_ptr()).collect();
        let value_lengths: Vec<usize> = params.iter().map(|(_, value)| value.len()).collect();
        // SAFETY: the four arrays have `params.len()` elements each and outlive the call, as do the buffers.
        unsafe {
            bound(
                connection,
                sql.as_ptr(),
                sql.len(),
                format.as_ptr(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                params.len(),
            )
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the connection is open and is closed only here.
        unsafe { (self.engine.symbols.close)(self.connection) };
    }
}

/// A running SELECT.
///
/// # Cancellation
/// Dropping it before its end cancels the query.
pub(crate) struct RowStream<'a> {
    session: &'a mut Session,
    handle: Handle,
    open: bool,
}

impl RowStream<'_> {
    /// Fetches the next chunk; blocks until it is there.
    ///
    /// # Errors
    /// What the engine reports; nothing follows an error.
    pub(crate) fn next(&mut self) -> Result<Option<Output>, ServerError> {
        if !self.open {
            return Ok(None);
        }
        let symbols = &self.session.engine.symbols;
        // SAFETY: both handles are live, and `&mut self` keeps other threads away.
        let fetched = unsafe { take(symbols, (symbols.stream_fetch)(self.session.raw(), self.handle)) };
        match fetched {
            Ok(output) if output.data.is_empty() => {
                self.open = false;
                Ok(None)
            }
            Ok(output) => Ok(Some(output)),
            Err(error) => {
                self.open = false;
                Err(error)
            }
        }
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        let symbols = &self.session.engine.symbols;
        // SAFETY: the handle is live and released once, here.
        unsafe {
            if self.open {
                (symbols.stream_cancel)(self.session.raw(), self.handle);
            }
            (symbols.destroy_result)(self.handle);
        }
    }
}

/// A running insert.
///
/// # Cancellation
/// Dropping it before [`InsertStream::finish`] discards what the engine has not committed as a full block.
pub(crate) struct InsertStream<'a> {
    engine: &'static Engine,
    handle: Handle,
    finished: bool,
    session: PhantomData<&'a mut Session>,
}

impl InsertStream<'_> {
    fn error(&self) -> Option<ServerError> {
        // SAFETY: the handle is live; the text is copied.
        unsafe { text((self.engine.symbols.insert_error)(self.handle)) }
            .map(|message| ServerError::from_engine(&message))
    }

    /// Hands over a piece of the data; blocks while the engine is behind.
    ///
    /// # Errors
    /// What the engine reports; the insert has failed.
    pub(crate) fn append(&mut self, data: &[u8]) -> Result<(), ServerError> {
        // SAFETY: the engine copies the bytes before it returns.
        let state = unsafe { (self.engine.symbols.insert_append)(self.handle, data.as_ptr(), data.len()) };
        if state == 0 { Ok(()) } else { Err(self.error().unwrap_or_else(ServerError::no_answer)) }
    }

    /// Commits the insert.
    ///
    /// # Errors
    /// What the engine reports.
    pub(crate) fn finish(mut self) -> Result<Counters, ServerError> {
        self.finished = true;
        let symbols = &self.engine.symbols;
        // SAFETY: the handle is live; the result is released by `take`.
        unsafe { take(symbols, (symbols.insert_done)(self.handle)) }.map(|output| output.counters)
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        let symbols = &self.engine.symbols;
        // SAFETY: the handle is live and released once, here.
        unsafe {
            if !self.finished {
                (symbols.insert_cancel)(self.handle);
            }
            (symbols.insert_destroy)(self.handle);
        }
    }
}

/// Copies a result out and releases it.
///
/// # Safety
/// `handle` is NULL or a live result of this library, and is not used afterwards.
unsafe fn take(symbols: &Symbols, handle: Handle) -> Result<Output, ServerError> {
    if handle.is_null() {
        return Err(ServerError::no_answer());
    }
    // SAFETY: the handle is live until `destroy_result`; buffer and length belong together.
    unsafe {
        let outcome = match text((symbols.result_error)(handle)) {
            Some(message) => Err(ServerError::from_engine(&message)),
            None => {
                let length = (symbols.result_length)(handle);
                let buffer = (symbols.result_buffer)(handle);
                let data = if buffer.is_null() || length == 0 {
                    Vec::new()
                } else {
                    std::slice::from_raw_parts(buffer, length).to_vec()
                };
                Ok(Output {
                    data,
                    counters: Counters {
                        result_rows: (symbols.result_rows)(handle),
                        read_rows: (symbols.storage_rows)(handle),
                        read_bytes: (symbols.storage_bytes)(handle),
                        written_rows: (symbols.rows_written)(handle),
                        written_bytes: (symbols.bytes_written)(handle),
                    },
                })
            }
        };
        (symbols.destroy_result)(handle);
        outcome
    }
}

/// Copies a C string.
///
/// # Safety
/// `pointer` is NULL or a string that ends with a zero byte.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    Some(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// Makes the kernel kill this process when its parent dies, however it dies.
///
/// # Errors
/// The parent is gone already, or the kernel refuses.
pub(crate) fn die_with_parent(parent: u32) -> std::io::Result<()> {
    // SAFETY: no memory is passed.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: cannot fail and touches no memory.
    let now = unsafe { libc::getppid() };
    // A parent that died before the call above sends no signal any more.
    if u32::try_from(now).ok() == Some(parent) {
        Ok(())
    } else {
        Err(std::io::Error::other("the parent process has ended"))
    }
}

/// Ends the process without running the engine's own exit handlers, which crash.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; nothing of this process needs its destructors.
    unsafe { libc::_exit(code) }
}
