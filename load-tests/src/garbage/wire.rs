//! Protobuf's wire format, as far as changing a message field by field needs it
//! (protobuf.dev/programming-guides/encoding).

/// One field of a message: its key's value, and what follows.
struct Field<'a> {
    key: u64,
    payload: Payload<'a>,
}

enum Payload<'a> {
    Varint(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

/// The message with each field passed through `change`, from the inside out, and every length set anew; bytes that are
/// no message come back as they are.
pub(crate) fn rebuilt(message: &[u8], depth: u8, change: &mut impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let Some(fields) = fields(message).filter(|_| depth > 0) else { return message.to_vec() };
    let mut out = Vec::with_capacity(message.len());
    for field in fields {
        let mut one = Vec::new();
        varint(&mut one, field.key);
        match field.payload {
            Payload::Varint(value) => varint(&mut one, value),
            Payload::Fixed(bytes) => one.extend_from_slice(bytes),
            Payload::Bytes(bytes) => {
                let inner = rebuilt(bytes, depth - 1, change);
                varint(&mut one, inner.len() as u64);
                one.extend_from_slice(&inner);
            }
        }
        change(&mut one);
        out.extend_from_slice(&one);
    }
    out
}

fn fields(mut bytes: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let payload = match key & 7 {
            0 => Payload::Varint(read_varint(&mut bytes)?),
            1 => Payload::Fixed(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                Payload::Bytes(take(&mut bytes, length)?)
            }
            5 => Payload::Fixed(take(&mut bytes, 4)?),
            _ => return None,
        };
        fields.push(Field { key, payload });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_message_comes_back_byte_for_byte_and_a_dropped_field_shortens_what_holds_it() {
        // {1: {2: 300}, 3: "hi"}
        let message = [0x0a, 3, 0x10, 0xac, 0x02, 0x1a, 2, b'h', b'i'];
        assert_eq!(rebuilt(&message, 9, &mut |_| {}), message);
        let without = rebuilt(&message, 9, &mut |field| {
            if field[0] == 0x10 {
                field.clear();
            }
        });
        assert_eq!(without, [0x0a, 0, 0x1a, 2, b'h', b'i']);
    }
}
