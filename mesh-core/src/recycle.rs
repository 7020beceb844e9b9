//! Blocks of memory that a thread keeps for further requests: state that travels with a request as one word, without an
//! allocation for each.

use std::{
    cell::RefCell,
    fmt,
    ops::{Deref, DerefMut},
    thread::LocalKey,
};

/// Blocks that a thread keeps of each type.
const KEPT: usize = 256;

/// Blocks without a value. The boxes go in and out, so that what holds one is one word.
pub(crate) type Blocks<T> = RefCell<Vec<Box<Option<T>>>>;

/// What lives in a recycled block.
pub(crate) trait Recycle: Sized + 'static {
    /// Where a thread keeps blocks of the type.
    fn blocks() -> &'static LocalKey<Blocks<Self>>;
}

/// A value in a block that goes back to its thread's blocks.
pub(crate) struct Recycled<T: Recycle>(Option<Box<Option<T>>>);

impl<T: Recycle> Recycled<T> {
    pub(crate) fn new(value: T) -> Self {
        let mut block = T::blocks().with_borrow_mut(Vec::pop).unwrap_or_default();
        *block = Some(value);
        Self(Some(block))
    }
}

/// Why there is a value: it goes on drop only.
const LIVES: &str = "the value lives until drop";

impl<T: Recycle> Deref for Recycled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let value = self.0.as_deref().and_then(Option::as_ref);
        value.expect(LIVES)
    }
}

impl<T: Recycle> DerefMut for Recycled<T> {
    fn deref_mut(&mut self) -> &mut T {
        let value = self.0.as_deref_mut().and_then(Option::as_mut);
        value.expect(LIVES)
    }
}

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

impl<T: Recycle + fmt::Debug> fmt::Debug for Recycled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
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
    fn a_thread_keeps_a_bounded_number() {
        let count = Rc::new(());
        let many: Vec<_> = (0..2 * KEPT)
            .map(|_| Recycled::new(Counted(count.clone())))
            .collect();
        drop(many);
        assert_eq!(BLOCKS.with_borrow(Vec::len), KEPT);
    }
}
