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

/// As [`locate`], for the document, or the item of a list of objects, that begins on `line`.
pub fn locate_at_line(text: &str, line: u32, path: &Path) -> Option<Location> {
    let mut reader = Reader::new(text, &Limits::default());
    let mut document = 0;
    while let Some(root) = reader.next_document().ok()? {
        if root.line == line {
            return locate(text, document, path);
        }
        let items = Path::root().key("items");
        if let Some(item) = item_at(reader.events(), line).ok()? {
            return locate(text, document, &path.below(&items.index(item)));
        }
        document += 1;
    }
    None
}

/// The index of the item of the present document's `items` that begins on `line`.
fn item_at(events: &mut Events<'_>, line: u32) -> Result<Option<usize>, super::Error> {
    let depth = events.depth();
    events.next()?;
    while events.depth() > depth {
        match events.next()?.0 {
            Token::Scalar { text, .. } if text == "items" && events.depth() == depth + 1 => break,
            Token::Scalar { .. } => events.skip_node()?,
            _ => {}
        }
    }
    if events.depth() == depth || events.next()?.0 != Token::SequenceStart {
        return Ok(None);
    }
    for index in 0.. {
        let (token, location) = events.peek()?;
        if *token == Token::SequenceEnd {
            break;
        }
        if location.line == line {
            return Ok(Some(index));
        }
        events.skip_node()?;
    }
    Ok(None)
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
