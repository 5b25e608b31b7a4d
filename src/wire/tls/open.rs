//! Opens what a peer sends.
//!
//! Owns the checks of a record: its length, its types, and the number of records without data.
//! Never answers: the caller sends the alert that an error names, and the KeyUpdate that a peer
//! requests.

use aws_lc_rs::aead::Aad;

use crate::wire::tls::alert::{AlertDescription, USER_CANCELED};
use crate::wire::tls::keys::{Direction, RecordKeys, Side};
use crate::wire::tls::record::{
    ALERT, APPLICATION_DATA, CONTENT_MAX, HANDSHAKE, HEADER, KEY_UPDATE, NEW_SESSION_TICKET,
    RECORD_MAX, TAG,
};

/// Maximum number of records without data in a row: KeyUpdates, empty records, tickets.
const WITHOUT_DATA_MAX: u64 = 32;

/// What stands at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A part of a record: more bytes are needed. The input is as it was.
    Partial,
    /// A record.
    Record {
        /// Bytes of the record in the input.
        used: usize,
        /// What it contains.
        content: Content<'a>,
    },
}

/// What a record contains.
#[derive(Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Application data, which may be empty.
    Data(&'a mut [u8]),
    /// The peer has changed its keys.
    KeyUpdate {
        /// Whether this side must change its keys too, by `seal_key_update(false, ..)`.
        answer: bool,
    },
    /// The peer sends nothing more.
    Closed,
    /// The peer has failed with this alert and reads nothing more.
    Alert(u8),
    /// Nothing that concerns the caller.
    Nothing,
}

impl RecordKeys {
    /// Opens the first record of `input` in place. An error is the fatal alert to send.
    pub fn open<'a>(&mut self, input: &'a mut [u8]) -> Result<Opened<'a>, AlertDescription> {
        let Some(used) = record_len(input)? else { return Ok(Opened::Partial) };
        let Some((record, _)) = input.split_at_mut_checked(used) else {
            return Ok(Opened::Partial);
        };
        let (header, body) = record.split_at_mut(HEADER);
        let mut side = self.side(Direction::Receive);
        let sequence = side.sequence();
        let inner = side
            .expanded()
            .open_in_place(side.nonce(sequence), Aad::from(&*header), body)
            .map_err(|_| AlertDescription::BadRecordMac)?;
        side.set_sequence(sequence + 1);
        let (inner_type, content) = without_padding(inner)?;
        let content = match inner_type {
            APPLICATION_DATA if !content.is_empty() => {
                side.reset_without_data();
                Content::Data(content)
            }
            _ if !side.count_without_data(WITHOUT_DATA_MAX) => {
                return Err(AlertDescription::UnexpectedMessage);
            }
            APPLICATION_DATA => Content::Data(content),
            ALERT => read_alert(content)?,
            HANDSHAKE => read_handshake(&mut side, content)?,
            _ => return Err(AlertDescription::UnexpectedMessage),
        };
        Ok(Opened::Record { used, content })
    }
}

/// Bytes of the record that begins the input, with its header; none while the header is not there.
/// A header that no record may have is refused by its first wrong byte.
fn record_len(input: &[u8]) -> Result<Option<usize>, AlertDescription> {
    // A ChangeCipherSpec and an alert in the clear belong to the handshake alone.
    if input.first().is_some_and(|&outer| outer != APPLICATION_DATA) {
        return Err(AlertDescription::UnexpectedMessage);
    }
    let Some(&[_, _, _, high, low]) = input.first_chunk() else { return Ok(None) };
    // The version is authenticated with the rest of the header and means nothing else.
    let sealed = usize::from(u16::from_be_bytes([high, low]));
    if HEADER + sealed > RECORD_MAX {
        return Err(AlertDescription::RecordOverflow);
    }
    // Without a tag, or with nothing before it.
    if sealed <= TAG {
        return Err(AlertDescription::BadRecordMac);
    }
    Ok(Some(HEADER + sealed))
}

/// The type and the content of what was sealed: type and padding follow the content.
fn without_padding(inner: &mut [u8]) -> Result<(u8, &mut [u8]), AlertDescription> {
    if inner.len() > CONTENT_MAX + 1 {
        return Err(AlertDescription::RecordOverflow);
    }
    let end = inner.iter().rposition(|&byte| byte != 0);
    let (content, rest) = inner.split_at_mut(end.ok_or(AlertDescription::UnexpectedMessage)?);
    match rest {
        [inner_type, ..] => Ok((*inner_type, content)),
        [] => Err(AlertDescription::UnexpectedMessage),
    }
}

/// In TLS 1.3 an alert is fatal whatever its level says, except the two of an orderly end.
fn read_alert<'a>(content: &[u8]) -> Result<Content<'a>, AlertDescription> {
    const CLOSE_NOTIFY: u8 = AlertDescription::CloseNotify as u8;
    match *content {
        [_, CLOSE_NOTIFY] => Ok(Content::Closed),
        [_, USER_CANCELED] => Ok(Content::Nothing),
        [_, alert] => Ok(Content::Alert(alert)),
        [] => Err(AlertDescription::UnexpectedMessage),
        _ => Err(AlertDescription::DecodeError),
    }
}

/// Reads a message of a handshake: a KeyUpdate, which must fill its record because the next record
/// has other keys, or, from a server, tickets.
fn read_handshake<'a>(
    side: &mut Side<'_>,
    content: &[u8],
) -> Result<Content<'a>, AlertDescription> {
    match *content {
        [KEY_UPDATE, 0, 0, 1, answer @ (0 | 1)] => {
            side.next_keys();
            side.set_sequence(0);
            Ok(Content::KeyUpdate { answer: answer == 1 })
        }
        [KEY_UPDATE, 0, 0, 1, _] => Err(AlertDescription::IllegalParameter),
        [KEY_UPDATE, high, middle, low, ..] if [high, middle, low] != [0, 0, 1] => {
            Err(AlertDescription::DecodeError)
        }
        [NEW_SESSION_TICKET, ..] if side.is_client() && are_tickets(content) => {
            Ok(Content::Nothing)
        }
        _ => Err(AlertDescription::UnexpectedMessage),
    }
}

/// Whether the content is whole messages with tickets.
fn are_tickets(mut content: &[u8]) -> bool {
    while let [NEW_SESSION_TICKET, high, middle, low, rest @ ..] = content {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let Some((_, after)) = rest.split_at_checked(length) else { return false };
        content = after;
    }
    content.is_empty()
}
