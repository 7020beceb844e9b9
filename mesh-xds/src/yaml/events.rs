//! A checked stream of YAML events: aliases already replaced, limits counted, every event with its place.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, StrInput, Tag};

use super::scalar::{Scalar, resolve};
use super::{Error, Limits, Location, Path, Segment};

/// An event of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    DocumentStart,
    DocumentEnd,
    StreamEnd,
    SequenceStart,
    SequenceEnd,
    MappingStart,
    MappingEnd,
    Scalar { text: Cow<'a, str>, kind: Kind },
}

/// How a scalar is to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Unquoted: null, boolean, number or text by its looks.
    Plain,
    /// Quoted, a block, or tagged `!!str`.
    Text,
}

/// A step of the current path, borrowed from the text.
#[derive(Clone, Debug)]
pub(crate) enum Step<'a> {
    Key(Cow<'a, str>),
    Index(usize),
}

type Spanned<'a> = (Token<'a>, Location);

/// An anchored node that is being read.
struct Recording<'a> {
    anchor: usize,
    open: usize,
    tokens: Vec<Spanned<'a>>,
}

/// Tokens to give out before the parser goes on.
struct Frame<'a> {
    tokens: Arc<[Spanned<'a>]>,
    next: usize,
    /// Whether open recordings have these tokens already.
    recorded: bool,
}

/// The events of one text.
pub(crate) struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    text: &'a str,
    limits: Limits,
    peeked: Option<Spanned<'a>>,
    /// Containers open after the tokens given out so far.
    depth: usize,
    consumed: u64,
    replayed: usize,
    replayed_bytes: usize,
    /// Tokens kept for aliases of the present document; one within several anchored nodes counts for each.
    recorded: usize,
    /// Where the last alias of the text stands.
    alias: Location,
    anchors: HashMap<usize, Arc<[Spanned<'a>]>>,
    recording: Vec<Recording<'a>>,
    replay: Vec<Frame<'a>>,
    /// Path of the node being read, kept by the deserializer.
    pub(crate) path: Vec<Step<'a>>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(text: &'a str, limits: &Limits) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut options = Options::default();
        options.set_emit_comments(false);
        // JSON keys and Istio's generated names may be long; the byte limit bounds the work.
        options.simple_key_max_lookahead = 16 * 1024;
        Self {
            parser: Parser::new_from_str_with_options(text, options),
            text,
            limits: limits.clone(),
            peeked: None,
            depth: 0,
            consumed: 0,
            replayed: 0,
            replayed_bytes: 0,
            recorded: 0,
            alias: Location::default(),
            anchors: HashMap::new(),
            recording: Vec::new(),
            replay: Vec::new(),
            path: Vec::new(),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// How many tokens were given out.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The path of the node being read.
    pub(crate) fn current_path(&self) -> Path {
        let segment = |step: &Step<'a>| match step {
            Step::Key(key) => Segment::Key(key.clone().into_owned()),
            Step::Index(index) => Segment::Index(*index),
        };
        self.path.iter().map(segment).collect()
    }

    pub(crate) fn peek(&mut self) -> Result<&Spanned<'a>, Error> {
        if self.peeked.is_none() {
            self.peeked = Some(self.pull()?);
        }
        Ok(self.peeked.as_ref().expect("filled above"))
    }

    pub(crate) fn next(&mut self) -> Result<Spanned<'a>, Error> {
        let (token, location) = match self.peeked.take() {
            Some(spanned) => spanned,
            None => self.pull()?,
        };
        self.consumed += 1;
        match token {
            Token::SequenceStart | Token::MappingStart => {
                self.depth += 1;
                if self.depth > self.limits.max_depth {
                    let limit = self.limits.max_depth;
                    return Err(self.over(location, &format!("nested deeper than {limit} levels")));
                }
            }
            Token::SequenceEnd | Token::MappingEnd => self.depth = self.depth.saturating_sub(1),
            Token::DocumentEnd => {
                self.anchors.clear();
                self.recorded = 0;
            }
            _ => {}
        }
        Ok((token, location))
    }

    /// Gives back the token read last.
    pub(crate) fn unread(&mut self, token: Token<'a>, location: Location) {
        if matches!(token, Token::SequenceStart | Token::MappingStart) {
            self.depth = self.depth.saturating_sub(1);
        }
        self.peeked = Some((token, location));
    }

    /// Reads the node that comes next and forgets it.
    pub(crate) fn skip_node(&mut self) -> Result<(), Error> {
        let depth = self.depth;
        self.next()?;
        self.close_to(depth)
    }

    /// Reads on until only `depth` containers are open.
    pub(crate) fn close_to(&mut self, depth: usize) -> Result<(), Error> {
        while self.depth > depth {
            self.next()?;
        }
        Ok(())
    }

    /// Reads the node that comes next into a list of tokens.
    pub(crate) fn collect_node(&mut self) -> Result<Vec<Spanned<'a>>, Error> {
        let depth = self.depth;
        let mut tokens = vec![self.next()?];
        while self.depth > depth {
            tokens.push(self.next()?);
        }
        Ok(tokens)
    }

    /// Puts tokens in front of what comes next.
    pub(crate) fn put_back(&mut self, mut tokens: Vec<Spanned<'a>>) {
        if let Some(peeked) = self.peeked.take() {
            tokens.push(peeked);
        }
        self.replay.push(Frame {
            tokens: tokens.into(),
            next: 0,
            recorded: true,
        });
    }

    fn pull(&mut self) -> Result<Spanned<'a>, Error> {
        loop {
            if let Some(((token, location), recorded)) = self.replayed_token() {
                self.count_replayed(&token)?;
                return if recorded {
                    Ok((token, location))
                } else {
                    self.record(token, location)
                };
            }
            let (event, span) = match self.parser.next_event() {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Err(self.scan_error(&error)),
                None => return Ok((Token::StreamEnd, Location::default())),
            };
            let location = location(&span.start);
            let (token, anchor) = match event {
                Event::DocumentStart(..) => (Token::DocumentStart, 0),
                Event::DocumentEnd => (Token::DocumentEnd, 0),
                Event::StreamEnd => (Token::StreamEnd, 0),
                Event::SequenceEnd => (Token::SequenceEnd, 0),
                Event::MappingEnd => (Token::MappingEnd, 0),
                Event::SequenceStart(_, anchor, _) => (Token::SequenceStart, anchor),
                Event::MappingStart(_, anchor, _) => (Token::MappingStart, anchor),
                Event::Scalar(text, style, anchor, tag) => {
                    let kind = scalar_kind(style, tag.as_deref());
                    (Token::Scalar { text, kind }, anchor)
                }
                Event::Alias(anchor) => {
                    self.alias = location;
                    self.start_replay(anchor, location)?;
                    continue;
                }
                _ => continue,
            };
            if anchor != 0 {
                self.recording.push(Recording {
                    anchor,
                    open: 0,
                    tokens: Vec::new(),
                });
            }
            return self.record(token, location);
        }
    }

    fn replayed_token(&mut self) -> Option<(Spanned<'a>, bool)> {
        while let Some(frame) = self.replay.last_mut() {
            if let Some(spanned) = frame.tokens.get(frame.next) {
                frame.next += 1;
                return Some((spanned.clone(), frame.recorded));
            }
            self.replay.pop();
        }
        None
    }

    fn start_replay(&mut self, anchor: usize, location: Location) -> Result<(), Error> {
        let Some(tokens) = self.anchors.get(&anchor) else {
            return Err(Error::syntax(
                "alias within the node that it names",
                location,
            ));
        };
        self.replay.push(Frame {
            tokens: Arc::clone(tokens),
            next: 0,
            recorded: false,
        });
        Ok(())
    }

    fn count_replayed(&mut self, token: &Token<'a>) -> Result<(), Error> {
        let location = self.alias;
        self.replayed += 1;
        if let Token::Scalar { text, .. } = token {
            self.replayed_bytes += text.len();
        }
        if self.replayed > self.limits.max_alias_nodes {
            let limit = self.limits.max_alias_nodes;
            return Err(self.over(
                location,
                &format!("aliases stand for more than {limit} nodes"),
            ));
        }
        if self.replayed_bytes > self.limits.max_alias_bytes {
            let limit = self.limits.max_alias_bytes;
            return Err(self.over(
                location,
                &format!("aliases stand for more than {limit} bytes"),
            ));
        }
        Ok(())
    }

    /// Appends the token to each anchored node that is still open.
    fn record(&mut self, token: Token<'a>, location: Location) -> Result<Spanned<'a>, Error> {
        if self.recording.is_empty() {
            return Ok((token, location));
        }
        self.recorded += self.recording.len();
        if self.recorded > self.limits.max_alias_nodes {
            let limit = self.limits.max_alias_nodes;
            let place = match self.replay.is_empty() {
                true => location,
                false => self.alias,
            };
            let what = format!("anchors and aliases stand for more than {limit} nodes");
            return Err(self.over(place, &what));
        }
        for recording in &mut self.recording {
            match token {
                Token::SequenceStart | Token::MappingStart => recording.open += 1,
                Token::SequenceEnd | Token::MappingEnd => {
                    recording.open = recording.open.saturating_sub(1)
                }
                _ => {}
            }
            recording.tokens.push((token.clone(), location));
        }
        // The innermost recording ends first.
        while let Some(recording) = self.recording.pop_if(|r| r.open == 0) {
            self.anchors
                .insert(recording.anchor, recording.tokens.into());
        }
        Ok((token, location))
    }

    fn over(&self, location: Location, what: &str) -> Error {
        Error::syntax(what, location).in_field(self.current_path())
    }

    fn scan_error(&self, error: &granit_parser::ScanError) -> Error {
        let at = error.marker();
        let parser = error.kind().to_string();
        let rest = self.text.get(at.byte_offset().unwrap_or(0)..);
        let rest = rest.unwrap_or_default();
        let tab = if parser.contains("tab") {
            self.tab(at.line())
        } else {
            None
        };
        let message = match rest.chars().next() {
            _ if tab.is_some() => "tab in the indentation, YAML allows spaces only",
            _ if self.text.lines().any(|line| line.starts_with("<<<<<<< ")) => {
                "a merge conflict that is not resolved"
            }
            _ if rest.trim().is_empty() => "the text ends too early",
            Some('*') => "`*` begins an alias in YAML; write it in quotes",
            Some('%' | '@' | '`') => "no word of YAML begins so; write it in quotes",
            _ => return Error::syntax(parser, location(at)),
        };
        Error::syntax(format!("{message} ({parser})"), tab.unwrap_or(location(at)))
    }

    /// The first tab in the indentation of this line or of one behind it: the parser's place is where the word before began.
    fn tab(&self, line: usize) -> Option<Location> {
        let lines = self.text.lines().enumerate();
        let mut lines = lines.skip(line.saturating_sub(1));
        lines.find_map(|(above, line)| {
            let blank = line.len() - line.trim_start().len();
            let column = line[..blank].chars().position(|c| c == '\t')?;
            Some(place(above + 1, column))
        })
    }
}

/// Whether the token is a null: `~`, `null` or nothing.
pub(crate) fn is_null(token: &Token<'_>) -> bool {
    matches!(token, Token::Scalar { text, kind: Kind::Plain } if resolve(text) == Scalar::Null)
}

fn scalar_kind(style: ScalarStyle, tag: Option<&Tag>) -> Kind {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix() == "str" => Kind::Text,
        // `!` alone means: not to be resolved.
        Some(tag) if !tag.is_yaml_core_schema() => Kind::Text,
        _ if style == ScalarStyle::Plain => Kind::Plain,
        // `!!int "1"` and the like: resolve the quoted text.
        Some(tag) if matches!(tag.suffix(), "int" | "float" | "bool" | "null") => Kind::Plain,
        _ => Kind::Text,
    }
}

fn location(marker: &granit_parser::Marker) -> Location {
    place(marker.line(), marker.col())
}

/// Of a line counted from 1 and a column counted from 0.
fn place(line: usize, column: usize) -> Location {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Location {
        line: narrow(line),
        column: narrow(column).saturating_add(1),
    }
}
