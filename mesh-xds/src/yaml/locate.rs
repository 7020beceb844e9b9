//! From a field path back to its line.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Events, Limits, Location, Path, Reader, Segment, Token};

/// Where the field `path` of the `document`-th document (the first is 0, empty ones not counted) begins: its key in a
/// mapping, its value in a list. If the field is not written, the nearest parent that is.
///
/// Costs one pass over the text and keeps nothing, so that no place needs to be remembered for fields that are right.
pub fn locate(text: &str, document: usize, path: &Path) -> Option<Location> {
    locate_all(text, &[(document, path.clone())])
        .into_iter()
        .next()
        .flatten()
}

/// As [`locate`], for any number of fields of any documents in one pass.
pub fn locate_all(text: &str, fields: &[(usize, Path)]) -> Vec<Option<Location>> {
    let mut found = vec![None; fields.len()];
    let mut documents: BTreeMap<usize, Wanted<'_>> = BTreeMap::new();
    for (index, (document, path)) in fields.iter().enumerate() {
        let root = documents.entry(*document).or_default();
        root.add(path.segments(), index);
    }
    let mut reader = Reader::new(text, &Limits::default());
    let mut document = 0;
    while let Some((last, _)) = documents.last_key_value()
        && document <= *last
        && let Ok(Some(root)) = reader.next_document()
    {
        if let Some(wanted) = documents.get(&document) {
            wanted.nearest(root, &mut found);
            // An error on the way (the text changed) leaves the nearest parents found so far.
            if descend(reader.events(), wanted, &mut found).is_err() {
                break;
            }
        }
        document += 1;
    }
    found
}

/// The fields to be found below a node.
#[derive(Default)]
struct Wanted<'w> {
    /// Those that are this node.
    here: Vec<usize>,
    keys: HashMap<&'w str, Self>,
    items: BTreeMap<usize, Self>,
}

impl<'w> Wanted<'w> {
    fn add(&mut self, path: &'w [Segment], index: usize) {
        let mut node = self;
        for segment in path {
            node = match segment {
                Segment::Key(key) => node.keys.entry(key.as_str()).or_default(),
                Segment::Index(item) => node.items.entry(*item).or_default(),
            };
        }
        node.here.push(index);
    }

    /// All that is wanted here and below is at least here.
    fn nearest(&self, location: Location, found: &mut [Option<Location>]) {
        for index in &self.here {
            found[*index] = Some(location);
        }
        for below in self.keys.values().chain(self.items.values()) {
            below.nearest(location, found);
        }
    }
}

/// As [`locate_all`], for documents, or items of a list of objects, that begin on these lines; two passes.
pub fn locate_at_lines(text: &str, fields: &[(u32, Path)]) -> Vec<Option<Location>> {
    let wanted: HashSet<u32> = fields.iter().map(|(line, _)| *line).collect();
    let roots = roots(text, &wanted);
    let known = fields
        .iter()
        .enumerate()
        .filter_map(|(index, (line, path))| {
            let (document, root) = roots.get(line)?;
            Some((index, (*document, path.below(root))))
        });
    let (indices, below): (Vec<_>, Vec<_>) = known.unzip();
    let mut found = vec![None; fields.len()];
    for (index, location) in indices.into_iter().zip(locate_all(text, &below)) {
        found[index] = location;
    }
    found
}

/// The document, and the path in it, of what begins on each of these lines.
fn roots(text: &str, lines: &HashSet<u32>) -> HashMap<u32, (usize, Path)> {
    let mut roots = HashMap::new();
    let mut reader = Reader::new(text, &Limits::default());
    let mut document = 0;
    while let Ok(Some(root)) = reader.next_document() {
        if lines.contains(&root.line) {
            roots.entry(root.line).or_insert((document, Path::root()));
        }
        let items = Path::root().key("items");
        let each = |index, line| {
            if lines.contains(&line) {
                let item = || (document, items.index(index));
                roots.entry(line).or_insert_with(item);
            }
        };
        if each_item(reader.events(), each).is_err() {
            break;
        }
        document += 1;
    }
    roots
}

/// Index and line of each item of the present document's `items`.
fn each_item(
    events: &mut Events<'_>,
    mut each: impl FnMut(usize, u32),
) -> Result<(), super::Error> {
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
        return Ok(());
    }
    for index in 0.. {
        let (token, location) = events.peek()?;
        if *token == Token::SequenceEnd {
            break;
        }
        each(index, location.line);
        events.skip_node()?;
    }
    Ok(())
}

/// Reads the node that comes next, and finds what is wanted below it.
fn descend(
    events: &mut Events<'_>,
    wanted: &Wanted<'_>,
    found: &mut [Option<Location>],
) -> Result<(), super::Error> {
    let depth = events.depth();
    match events.next()?.0 {
        Token::MappingStart if !wanted.keys.is_empty() => {
            let mut seen = HashSet::new();
            while let (Token::Scalar { text, .. }, location) = events.next()? {
                match wanted.keys.get_key_value(&*text) {
                    // Of a key that stands twice the first counts.
                    Some((key, below)) if seen.insert(*key) => {
                        below.nearest(location, found);
                        descend(events, below, found)?;
                    }
                    _ => events.skip_node()?,
                }
                if seen.len() == wanted.keys.len() {
                    break;
                }
            }
        }
        Token::SequenceStart if !wanted.items.is_empty() => {
            let mut item = 0;
            for (index, below) in &wanted.items {
                while item < *index && events.peek()?.0 != Token::SequenceEnd {
                    events.skip_node()?;
                    item += 1;
                }
                let (token, location) = events.peek()?;
                if *token == Token::SequenceEnd {
                    break;
                }
                below.nearest(*location, found);
                descend(events, below, found)?;
                item += 1;
            }
        }
        _ => {}
    }
    events.close_to(depth)
}
