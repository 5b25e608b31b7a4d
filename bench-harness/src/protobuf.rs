//! Commands and replies of the Centrifuge protocol in Protobuf.
//!
//! Owns the encoding of commands and the walk over the fields of a reply. Never knows what a field
//! means. Invariant: incomplete bytes end the walk, so no field is returned in part.
//!
//! The field numbers are those of the public protocol definition (centrifugal/protocol).

/// Encodes a field that holds bytes.
pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    out.push(number << 3 | 2);
    write_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// Appends a command with its length prefix: its number, and the request in the field `number`.
pub fn command(id: u32, number: u8, request: &[u8], out: &mut Vec<u8>) {
    let mut command = vec![1 << 3];
    write_varint(id.into(), &mut command);
    command.extend(field(number, request));
    write_varint(command.len() as u64, out);
    out.extend(command);
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes the varint at the front. Returns its value and its length in bytes.
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// The fields of a message: number and bytes. The bytes of a numeric field are empty.
pub fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (key, used) = varint(bytes)?;
        let (value, more) = varint(bytes.get(used..)?)?;
        let start = used + more;
        let end = if key & 7 == 2 { start.checked_add(value as usize)? } else { start };
        let content = bytes.get(start..end)?;
        bytes = &bytes[end..];
        Some((key >> 3, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drumline::wire::protocol::protobuf;

    #[test]
    fn the_server_parses_commands_with_large_numbers() {
        let mut commands = Vec::new();
        for id in [1, 127, 128, 1 << 30] {
            command(id, 7, &field(1, b"news"), &mut commands);
        }
        let mut read = protobuf::Commands::new(&commands);
        for id in [1, 127, 128, 1 << 30] {
            assert_eq!(read.next().unwrap().unwrap().id, id);
        }
        assert!(read.next().is_none());
    }

    #[test]
    fn fields_end_at_incomplete_bytes() {
        let message = [field(1, b"a"), field(2, b"bc")].concat();
        let all: Vec<(u64, &[u8])> = fields(&message).collect();
        assert_eq!(all, [(1, &b"a"[..]), (2, b"bc")]);
        assert_eq!(fields(&message[..message.len() - 1]).count(), 1);
    }
}
