//! Whether a field of a message is set, and lists of fields that have no effect or are refused.

use std::collections::HashMap;

/// Whether a field differs from its default.
pub(crate) trait IsSet {
    /// Whether it does.
    fn is_set(&self) -> bool;
}

impl<T: IsSet> IsSet for &T {
    fn is_set(&self) -> bool {
        (**self).is_set()
    }
}

impl<T> IsSet for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T> IsSet for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsSet for HashMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl IsSet for bool {
    fn is_set(&self) -> bool {
        *self
    }
}

impl IsSet for i32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

impl IsSet for u32 {
    fn is_set(&self) -> bool {
        *self != 0
    }
}

/// Notes each of these variables, named as their fields are, that is set: it has no effect. With a message after the
/// context, its fields.
macro_rules! ignored {
    ($cx:expr; $($field:ident),+ $(,)?) => {
        $($cx.ignored(stringify!($field), $crate::decode::set::IsSet::is_set($field));)+
    };
    ($cx:expr, $value:expr; $($field:ident),+ $(,)?) => {
        $($cx.ignored(stringify!($field), $crate::decode::set::IsSet::is_set(&$value.$field));)+
    };
}

/// Refuses the resource for each of these variables, named as their fields are, that is set. With a message after the
/// context, its fields.
macro_rules! unsupported {
    ($cx:expr; $($field:ident),+ $(,)?) => {
        $($cx.unsupported(stringify!($field), $crate::decode::set::IsSet::is_set($field));)+
    };
    ($cx:expr, $value:expr; $($field:ident),+ $(,)?) => {
        $($cx.unsupported(stringify!($field), $crate::decode::set::IsSet::is_set(&$value.$field));)+
    };
}

pub(crate) use {ignored, unsupported};
