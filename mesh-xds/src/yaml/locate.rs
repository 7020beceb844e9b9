//! From a field path back to its line.

use super::{Events, Limits, Location, Path, Reader, Segment, Token};

/// Where the field `path` of the `document`-th document (the first is 0, empty ones not counted) begins: its key in a
/// mapping, its value in a list. If the field is not written, the nearest parent that is.
///
/// Costs one pass over the text and keeps nothing, so that no place needs to be remembered for fields that are right.
pub fn locate(text: &str, document: usize, path: &Path) -> Option<Location> {
    let mut reader = Reader::new(text, &Limits::default());
    let mut root = reader.next_document().ok()??;
    for _ in 0..document {
        root = reader.next_document().ok()??;
    }
    let mut found = root;
    // An error on the way (the text changed) leaves the nearest parent found so far.
    let _ = descend(reader.events(), path.segments(), &mut found);
    Some(found)
}

fn descend(
    events: &mut Events<'_>,
    path: &[Segment],
    found: &mut Location,
) -> Result<(), super::Error> {
    let Some((segment, rest)) = path.split_first() else {
        return Ok(());
    };
    let (token, _) = events.next()?;
    match (token, segment) {
        (Token::MappingStart, Segment::Key(key)) => loop {
            let (token, location) = events.next()?;
            match token {
                Token::Scalar { text, .. } if text == key.as_str() => {
                    *found = location;
                    return descend(events, rest, found);
                }
                Token::Scalar { .. } => events.skip_node()?,
                _ => return Ok(()),
            }
        },
        (Token::SequenceStart, Segment::Index(index)) => {
            for _ in 0..*index {
                if events.peek()?.0 == Token::SequenceEnd {
                    return Ok(());
                }
                events.skip_node()?;
            }
            let (token, location) = events.peek()?;
            if *token != Token::SequenceEnd {
                *found = *location;
                descend(events, rest, found)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
