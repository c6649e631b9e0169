//! The protobuf wire format, as far as splitting a request into records needs it.

use crate::inspect::BadBody;

/// A field's value as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of one message.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    body: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0, end: body.len() }
    }

    fn fault(&self) -> BadBody {
        BadBody::new("malformed_protobuf", format!("not protobuf at byte {}", self.at), Some(self.at))
    }

    fn varint(&mut self) -> Result<u64, BadBody> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = match self.body.get(self.at) {
                Some(&byte) if self.at < self.end => byte,
                _ => return Err(self.fault()),
            };
            if shift == 63 && byte > 1 {
                break;
            }
            self.at += 1;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fault())
    }

    /// Moves past `len` bytes and returns the place before them.
    fn advance(&mut self, len: u64) -> Result<usize, BadBody> {
        let before = self.at;
        let end = usize::try_from(len).ok().and_then(|len| before.checked_add(len));
        match end {
            Some(end) if end <= self.end => {
                self.at = end;
                Ok(before)
            }
            _ => Err(self.fault()),
        }
    }

    /// The next field's number and value, or `None` at the message's end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, BadBody> {
        Ok(self.next_nested()?.map(|(field, value, _)| (field, value)))
    }

    fn next_nested(&mut self) -> Result<Option<(u32, Value<'a>, Self)>, BadBody> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).unwrap_or(0);
        let (value, from) = match tag & 7 {
            _ if field == 0 || field >= 1 << 29 => {
                self.at = start;
                return Err(self.fault());
            }
            0 => (Value::Varint(self.varint()?), self.at),
            1 => (Value::Fixed, self.advance(8)?),
            5 => (Value::Fixed, self.advance(4)?),
            2 => {
                let len = self.varint()?;
                let from = self.advance(len)?;
                (Value::Bytes(self.body.get(from..self.at).unwrap_or_default()), from)
            }
            _ => {
                self.at = start;
                return Err(self.fault());
            }
        };
        Ok(Some((field, value, Self { body: self.body, at: from, end: self.at })))
    }

    /// Goes through the fields; `each` gets a field's number, its bytes and the fields within them.
    ///
    /// # Errors
    /// A field is broken, or one of `messages` is not a message.
    pub(super) fn each_message(
        mut self,
        messages: &[u32],
        mut each: impl FnMut(u32, &'a [u8], Self) -> Result<(), BadBody>,
    ) -> Result<(), BadBody> {
        loop {
            let start = self.at;
            match self.next_nested()? {
                None => return Ok(()),
                Some((field, Value::Bytes(bytes), nested)) if messages.contains(&field) => {
                    each(field, bytes, nested)?;
                }
                Some((field, _, _)) if messages.contains(&field) => {
                    self.at = start;
                    return Err(self.fault());
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_byte() {
        let position = |body: &[u8]| {
            let mut fields = Fields::new(body);
            loop {
                match fields.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(bad) => return bad.position,
                }
            }
        };
        assert_eq!(position(&[0x0A, 0x02, 1, 2, 0x10, 0x05]), None);
        assert_eq!(position(&[0x0A, 0x03, 1, 2]), Some(2));
        assert_eq!(position(&[0x08, 0x01, 0x0B]), Some(2));
        assert_eq!(position(&[0x00]), Some(0));
        assert_eq!(position(&[0xFF; 12]), Some(9));
    }
}
