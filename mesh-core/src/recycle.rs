//! Blocks of memory that a thread keeps for further requests: state that travels with a request as one word, without an
//! allocation for each.

#[cfg(feature = "net")]
use std::thread::LocalKey;
use std::{
    any::Any,
    cell::RefCell,
    fmt,
    ops::{Deref, DerefMut},
};

/// Blocks that a thread keeps of each type, and of all types of [`Pooled`] together.
const KEPT: usize = 256;
/// Blocks that are looked at for one of the right type: a thread mostly has values of one.
const LOOKED_AT: usize = 4;

thread_local! {
    static MIXED: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// A value of any type in a block that its thread uses again: a large value that travels as one word, without an allocation for
/// each. Reads as the value.
pub struct Pooled<T: 'static>(Option<Box<Option<T>>>);

impl<T> Pooled<T> {
    /// Puts `value` into a block.
    pub fn new(value: T) -> Self {
        let mut block = vacant().unwrap_or_default();
        *block = Some(value);
        Self(Some(block))
    }

    /// Takes the value out.
    pub fn into_inner(mut self) -> T {
        let mut block = self.0.take().expect(LIVES);
        let value = block.take().expect(LIVES);
        keep(block);
        value
    }
}

/// A block without a value, if there is one of this type.
fn vacant<T: 'static>() -> Option<Box<Option<T>>> {
    // A thread that ends has none any more.
    let block = MIXED.try_with(|blocks| {
        let mut blocks = blocks.borrow_mut();
        match blocks.pop()?.downcast() {
            Ok(block) => Some(block),
            Err(other) => {
                blocks.push(other);
                older(&mut blocks)
            }
        }
    });
    block.ok().flatten()
}

/// A block of the right type among those below the newest.
#[cold]
fn older<T: 'static>(blocks: &mut Vec<Box<dyn Any>>) -> Option<Box<Option<T>>> {
    let mut newest = blocks.iter().rev().take(LOOKED_AT);
    let back = newest.position(|block| block.is::<Option<T>>())?;
    let at = blocks.len() - 1 - back;
    blocks.swap_remove(at).downcast().ok()
}

fn keep<T: 'static>(block: Box<Option<T>>) {
    let _ = MIXED.try_with(|blocks| {
        let mut blocks = blocks.borrow_mut();
        if blocks.len() >= KEPT {
            // The newest goes, so that blocks of a type that is no longer in use do not stand in the way for ever.
            blocks.pop();
        }
        blocks.push(block);
    });
}

impl<T> From<T> for Pooled<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let value = self.0.as_deref().and_then(Option::as_ref);
        value.expect(LIVES)
    }
}

impl<T> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T {
        let value = self.0.as_deref_mut().and_then(Option::as_mut);
        value.expect(LIVES)
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        if let Some(mut block) = self.0.take() {
            *block = None;
            keep(block);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Blocks without a value. The boxes go in and out, so that what holds one is one word.
#[cfg(feature = "net")]
pub(crate) type Blocks<T> = RefCell<Vec<Box<Option<T>>>>;

/// What lives in a recycled block.
#[cfg(feature = "net")]
pub(crate) trait Recycle: Sized + 'static {
    /// Where a thread keeps blocks of the type.
    fn blocks() -> &'static LocalKey<Blocks<Self>>;
}

/// A value in a block that goes back to its thread's blocks.
#[cfg(feature = "net")]
pub(crate) struct Recycled<T: Recycle>(Option<Box<Option<T>>>);

#[cfg(feature = "net")]
impl<T: Recycle> Recycled<T> {
    pub(crate) fn new(value: T) -> Self {
        let mut block = T::blocks().with_borrow_mut(Vec::pop).unwrap_or_default();
        *block = Some(value);
        Self(Some(block))
    }
}

/// Why there is a value: it goes on drop only.
const LIVES: &str = "the value lives until drop";

#[cfg(feature = "net")]
impl<T: Recycle> Deref for Recycled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let value = self.0.as_deref().and_then(Option::as_ref);
        value.expect(LIVES)
    }
}

#[cfg(feature = "net")]
impl<T: Recycle> DerefMut for Recycled<T> {
    fn deref_mut(&mut self) -> &mut T {
        let value = self.0.as_deref_mut().and_then(Option::as_mut);
        value.expect(LIVES)
    }
}

#[cfg(feature = "net")]
impl<T: Recycle> Drop for Recycled<T> {
    fn drop(&mut self) {
        let Some(mut block) = self.0.take() else {
            return;
        };
        *block = None;
        // A thread that ends keeps nothing any more.
        let _ = T::blocks().try_with(|blocks| {
            let mut blocks = blocks.borrow_mut();
            if blocks.len() < KEPT {
                blocks.push(block);
            }
        });
    }
}

#[cfg(feature = "net")]
impl<T: Recycle + fmt::Debug> fmt::Debug for Recycled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, feature = "net"))]
mod tests {
    use std::rc::Rc;

    use super::*;

    struct Counted(Rc<()>);

    thread_local!(static BLOCKS: Blocks<Counted> = const { RefCell::new(Vec::new()) });

    impl Recycle for Counted {
        fn blocks() -> &'static LocalKey<Blocks<Self>> {
            &BLOCKS
        }
    }

    #[test]
    fn a_block_is_used_again_and_holds_nothing_in_between() {
        let count = Rc::new(());
        let first = Recycled::new(Counted(count.clone()));
        let at: *const Counted = &*first;
        assert_eq!(Rc::strong_count(&(*first).0), 2);
        drop(first);
        assert_eq!(Rc::strong_count(&count), 1);
        let second = Recycled::new(Counted(count.clone()));
        assert!(std::ptr::eq(at, &*second));
    }

    #[test]
    fn blocks_of_several_types_are_used_again() {
        let one = Pooled::new(1_u64);
        let other = Pooled::new(String::from("text"));
        let (at, there): (*const u64, *const String) = (&*one, &*other);
        assert_eq!((one.into_inner(), other.into_inner().as_str()), (1, "text"));
        let (one, other) = (Pooled::new(2_u64), Pooled::new(String::new()));
        assert!(std::ptr::eq(at, &*one) && std::ptr::eq(there, &*other));
        let count = Rc::new(());
        let held = Pooled::new(count.clone());
        drop(held);
        assert_eq!(Rc::strong_count(&count), 1);
        let many: Vec<_> = (0..2 * KEPT).map(Pooled::new).collect();
        assert!(many.iter().enumerate().all(|(index, held)| index == **held));
        drop(many);
        assert_eq!(MIXED.with_borrow(Vec::len), KEPT);
    }

    #[test]
    fn a_thread_keeps_a_bounded_number() {
        let count = Rc::new(());
        let many: Vec<_> = (0..2 * KEPT)
            .map(|_| Recycled::new(Counted(count.clone())))
            .collect();
        drop(many);
        assert_eq!(BLOCKS.with_borrow(Vec::len), KEPT);
    }
}
