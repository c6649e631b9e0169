//! Just enough of protobuf's wire format to take a message apart and put it together again differently.

use std::ops::Range;

/// Depth to which bytes are taken for messages, when they can be.
const DEPTH: u32 = 12;

/// One field of a message: where it lies, and the bytes it holds if it holds bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) tag: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) payload: Option<usize>,
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The fields of a message; `None` when it is none.
pub(crate) fn fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        let tag = varint(bytes, &mut at)?;
        let mut payload = None;
        match tag & 7 {
            0 => {
                varint(bytes, &mut at)?;
            }
            1 => at += 8,
            5 => at += 4,
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                payload = Some(at);
                at = at.checked_add(length)?;
            }
            _ => return None,
        }
        if at > bytes.len() || tag >> 3 == 0 {
            return None;
        }
        found.push(Field { tag, start, end: at, payload });
    }
    Some(found)
}

/// A message that knows where the fields of every depth lie.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// Every field, followed by the fields inside it.
    fields: Vec<Field>,
    /// For each field, the number of the first one that is not inside it.
    after: Vec<usize>,
}

impl Message {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut message = Self { bytes: bytes.to_vec(), fields: Vec::new(), after: Vec::new() };
        message.index(0..bytes.len(), DEPTH);
        message
    }

    fn index(&mut self, range: Range<usize>, depth: u32) {
        if depth == 0 {
            return;
        }
        for field in fields(&self.bytes[range.clone()]).unwrap_or_default() {
            let number = self.fields.len();
            let offset = |at: usize| at + range.start;
            let payload = field.payload.map(offset);
            let end = offset(field.end);
            self.fields.push(Field { start: offset(field.start), end, payload, ..field });
            self.after.push(0);
            if let Some(payload) = payload {
                self.index(payload..end, depth - 1);
            }
            self.after[number] = self.fields.len();
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many fields there are, at every depth.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Bytes of a field, its tag and length included.
    pub(crate) fn field(&self, number: usize) -> &[u8] {
        &self.bytes[self.fields[number].start..self.fields[number].end]
    }

    /// The message with the fields of these numbers given to `change`, which writes what stands in their place; the
    /// lengths around them are made right.
    pub(crate) fn rebuilt(
        &self,
        chosen: &[usize],
        change: &mut impl FnMut(Field, &[u8], &mut Vec<u8>),
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 64);
        self.rebuild(0..self.fields.len(), 0..self.bytes.len(), chosen, change, &mut out);
        out
    }

    fn rebuild(
        &self,
        numbers: Range<usize>,
        range: Range<usize>,
        chosen: &[usize],
        change: &mut impl FnMut(Field, &[u8], &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let (mut at, mut number) = (range.start, numbers.start);
        while number < numbers.end {
            let (field, after) = (self.fields[number], self.after[number]);
            let within = |numbers: Range<usize>| chosen.iter().any(|one| numbers.contains(one));
            if within(number..after) {
                out.extend_from_slice(&self.bytes[at..field.start]);
                at = field.end;
                let mut whole = Vec::new();
                match field.payload {
                    Some(payload) if within(number + 1..after) => {
                        let mut inner = Vec::new();
                        self.rebuild(number + 1..after, payload..field.end, chosen, change, &mut inner);
                        put_varint(field.tag, &mut whole);
                        put_varint(inner.len() as u64, &mut whole);
                        whole.extend(inner);
                    }
                    _ => whole.extend_from_slice(&self.bytes[field.start..field.end]),
                }
                if chosen.contains(&number) {
                    change(field, &whole, out);
                } else {
                    out.extend(whole);
                }
            }
            number = after;
        }
        out.extend_from_slice(&self.bytes[at..range.end]);
    }
}
