//! Just enough of protobuf's wire format to take a message apart and put it together again differently.

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

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
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

/// A message with each of its fields given to `change`, which gives what stands in its place; messages inside first.
pub(crate) fn rebuilt(bytes: &[u8], depth: u32, change: &mut impl FnMut(Field, &[u8]) -> Vec<u8>) -> Vec<u8> {
    let Some(found) = fields(bytes).filter(|found| depth > 0 && !found.is_empty()) else {
        return bytes.to_vec();
    };
    let mut out = Vec::new();
    for field in found {
        let whole = match field.payload {
            Some(payload) => {
                let inner = rebuilt(&bytes[payload..field.end], depth - 1, change);
                let mut whole = Vec::new();
                put_varint(field.tag, &mut whole);
                put_varint(inner.len() as u64, &mut whole);
                whole.extend(inner);
                whole
            }
            None => bytes[field.start..field.end].to_vec(),
        };
        out.extend(change(field, &whole));
    }
    out
}
