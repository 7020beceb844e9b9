//! Look-ups in the header maps of usual heads: comparing with a few names costs less than hashing one.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields up to which comparing is cheaper.
const FEW: usize = 24;

/// The first value of `name`.
pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.len() > FEW {
        return headers.get(name);
    }
    let mut all = headers.iter();
    all.find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

/// Whether there is a value of `name`.
pub(crate) fn contains(headers: &HeaderMap, name: &HeaderName) -> bool {
    get(headers, name).is_some()
}

/// All values of `name`, in their order.
pub(crate) fn values<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    let few = headers.len() <= FEW;
    let compared = few.then(|| headers.iter().filter(move |(known, _)| *known == name));
    let hashed = (!few).then(|| headers.get_all(name).iter());
    let compared = compared.into_iter().flatten().map(|(_, value)| value);
    compared.chain(hashed.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_same() {
        let mut headers = HeaderMap::new();
        let (two, none) = (
            HeaderName::from_static("x-two"),
            HeaderName::from_static("x-none"),
        );
        for size in 0..2 * FEW {
            let seen: Vec<_> = values(&headers, &two).collect();
            let wanted: Vec<_> = headers.get_all(&two).iter().collect();
            assert_eq!(seen, wanted);
            assert_eq!(get(&headers, &two), headers.get(&two));
            assert!(!contains(&headers, &none));
            let other = HeaderName::try_from(format!("x-{size}")).expect("a name");
            headers.append(other, HeaderValue::from_static("other"));
            if size % 5 == 1 {
                headers.append(two.clone(), HeaderValue::from(size));
            }
        }
    }
}
