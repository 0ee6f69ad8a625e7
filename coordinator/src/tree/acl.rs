//! ACLs: who may do what, and which lists are valid.

use std::borrow::Cow;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use elkfk_wire::jute::{Acl, ErrorCode, perms};
use sha1::{Digest, Sha1};

/// What a connection has authenticated as: scheme and id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    pub(crate) scheme: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
}

/// The scheme of an [`Identity`] that no ACL stops; its id is empty.
pub(crate) const SUPER: &str = "super";

/// `user:base64(sha1(user:password))` of `user:password`, as ZooKeeper's digest scheme has it.
pub(crate) fn digest_id(credentials: &str) -> String {
    let user = credentials.split(':').next().unwrap_or_default();
    format!("{user}:{}", STANDARD.encode(Sha1::digest(credentials.as_bytes())))
}

/// The list that is stored for a list that was asked for: without doubles, and with `auth` replaced
/// by what the asker has authenticated as.
pub(crate) fn fix_acl(
    asked: Option<&[Acl<'_>]>,
    identities: &[Identity<'_>],
) -> Result<Vec<Acl<'static>>, ErrorCode> {
    let asked = asked.filter(|asked| !asked.is_empty()).ok_or(ErrorCode::InvalidAcl)?;
    let mut fixed: Vec<Acl<'static>> = Vec::with_capacity(asked.len());
    let mut add = |acl: Acl<'static>| {
        if !fixed.contains(&acl) {
            fixed.push(acl);
        }
    };
    for acl in asked {
        match acl.scheme.as_ref() {
            "world" if acl.id == "anyone" => add(acl.clone().into_owned()),
            "auth" => {
                // An address proves nothing, and the super user is nobody by that name.
                let is_proven =
                    |identity: &&Identity<'_>| identity.scheme != "ip" && identity.scheme != SUPER;
                let mut proven = identities.iter().filter(is_proven);
                let first = proven.next().ok_or(ErrorCode::InvalidAcl)?;
                for identity in std::iter::once(first).chain(proven) {
                    add(Acl {
                        perms: acl.perms,
                        scheme: Cow::Owned(identity.scheme.clone().into_owned()),
                        id: Cow::Owned(identity.id.clone().into_owned()),
                    });
                }
            }
            // As Java splits: what is empty at the end is no part.
            "digest" if acl.id.trim_end_matches(':').split(':').count() == 2 => {
                add(acl.clone().into_owned())
            }
            "ip" if Network::parse(&acl.id).is_some() => add(acl.clone().into_owned()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    Ok(fixed)
}

/// Whether one of `perm`s bits is granted.
pub(crate) fn is_permitted(acl: &[Acl<'_>], perm: i32, identities: &[Identity<'_>]) -> bool {
    acl.is_empty()
        || identities.iter().any(|identity| identity.scheme == SUPER)
        || acl.iter().filter(|acl| acl.perms & perm != 0).any(|acl| match acl.scheme.as_ref() {
            "world" => acl.id == "anyone",
            "ip" => Network::parse(&acl.id).is_some_and(|network| {
                identities
                    .iter()
                    .filter(|identity| identity.scheme == "ip")
                    .filter_map(|identity| identity.id.parse().ok())
                    .any(|addr| network.contains(addr))
            }),
            scheme => {
                identities.iter().any(|identity| identity.scheme == scheme && identity.id == acl.id)
            }
        })
}

/// The list as one sees it who may read but not administrate: digests are hidden.
pub(crate) fn mask_digests<'a>(
    acl: &'a [Acl<'static>],
    identities: &[Identity<'_>],
) -> Vec<Acl<'a>> {
    let is_shown = is_permitted(acl, perms::ADMIN, identities);
    let masked = |acl: &'a Acl<'static>| {
        let id = match acl.id.split_once(':') {
            Some((user, _)) if !is_shown && acl.scheme == "digest" => {
                Cow::Owned(format!("{user}:x"))
            }
            _ => Cow::Borrowed(acl.id.as_ref()),
        };
        Acl { perms: acl.perms, scheme: Cow::Borrowed(acl.scheme.as_ref()), id }
    };
    acl.iter().map(masked).collect()
}

/// `10.0.0.0/8`, or one address.
struct Network {
    addr: IpAddr,
    prefix_bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().ok()?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let prefix_bits = bits.unwrap_or(most);
        (prefix_bits <= most).then_some(Self { addr, prefix_bits })
    }

    fn contains(&self, addr: IpAddr) -> bool {
        let bits = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => (u128::from(u32::from(addr)) << 96, 32),
            IpAddr::V6(addr) => (u128::from(addr), 128),
        };
        let ((ours, width), (theirs, other_width)) = (bits(self.addr), bits(addr));
        let mask = u128::MAX.checked_shl(128 - self.prefix_bits).unwrap_or(0);
        width == other_width && ours & mask == theirs & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(perms: i32, scheme: &'static str, id: &'static str) -> Acl<'static> {
        Acl { perms, scheme: scheme.into(), id: id.into() }
    }

    fn identity(scheme: &'static str, id: &'static str) -> Identity<'static> {
        Identity { scheme: scheme.into(), id: id.into() }
    }

    #[test]
    fn digests_are_zookeepers() {
        assert_eq!(digest_id("user:pw"), "user:2Om+GBbT2q/tS6pdvACZbbm7/1A=");
    }

    #[test]
    fn lists_are_checked_and_auth_is_replaced() {
        let us = [identity("ip", "127.0.0.1"), identity("digest", "u:h")];
        let fix = |list: &[Acl<'static>]| fix_acl(Some(list), &us);
        assert_eq!(fix(&[acl(31, "auth", "")]), Ok(vec![acl(31, "digest", "u:h")]));
        assert_eq!(fix(&[Acl::OPEN, Acl::OPEN]), Ok(vec![Acl::OPEN]));
        assert_eq!(fix(&[acl(1, "ip", "10.0.0.0/8")]), Ok(vec![acl(1, "ip", "10.0.0.0/8")]));
        for good in [acl(1, "digest", ":b"), acl(1, "digest", "a:b:")] {
            assert_eq!(fix(std::slice::from_ref(&good)), Ok(vec![good]));
        }
        for bad in [
            acl(1, "world", "someone"),
            acl(1, "digest", "nocolon"),
            acl(1, "digest", "a:"),
            acl(1, "digest", "a::"),
            acl(1, "digest", ":"),
            acl(1, "digest", "a:b:c"),
            acl(1, "ip", "10.0.0.0/33"),
            acl(1, "ip", "ten"),
            acl(1, "nosuch", "x"),
        ] {
            assert_eq!(fix(std::slice::from_ref(&bad)), Err(ErrorCode::InvalidAcl), "{bad:?}");
        }
        assert_eq!(fix_acl(None, &us), Err(ErrorCode::InvalidAcl));
        for nobody in [&us[..1], &[identity(SUPER, "")][..]] {
            assert_eq!(fix_acl(Some(&[Acl::CREATOR]), nobody), Err(ErrorCode::InvalidAcl));
        }
    }

    #[test]
    fn permission_needs_the_bit_and_the_identity() {
        let us = [identity("ip", "10.1.2.3"), identity("digest", "u:h")];
        let check = |acl: Acl<'static>, perm, expected| {
            assert_eq!(is_permitted(std::slice::from_ref(&acl), perm, &us), expected, "{acl:?}");
        };
        check(Acl::OPEN, perms::ADMIN, true);
        check(acl(1, "world", "anyone"), perms::WRITE, false);
        check(acl(1, "world", "anyone"), perms::READ | perms::ADMIN, true);
        check(acl(31, "digest", "u:h"), perms::WRITE, true);
        check(acl(31, "digest", "u:other"), perms::WRITE, false);
        check(acl(31, "ip", "10.0.0.0/8"), perms::WRITE, true);
        check(acl(31, "ip", "10.1.2.3"), perms::WRITE, true);
        check(acl(31, "ip", "10.1.2.4"), perms::WRITE, false);
        check(acl(31, "ip", "0.0.0.0/0"), perms::WRITE, true);
        check(acl(31, "ip", "::/0"), perms::WRITE, false);
        assert!(is_permitted(&[], perms::WRITE, &[]));
        let nobody = [acl(1, "digest", "u:h")];
        assert!(is_permitted(&nobody, perms::WRITE, &[identity(SUPER, "")]));
        assert!(!is_permitted(&nobody, perms::WRITE, &[identity("digest", SUPER)]));
    }

    #[test]
    fn digests_are_hidden_from_those_who_may_only_read() {
        let list = [acl(1, "world", "anyone"), acl(31, "digest", "u:h")];
        assert_eq!(mask_digests(&list, &[])[1].id, "u:x");
        assert_eq!(mask_digests(&list, &[identity("digest", "u:h")])[1].id, "u:h");
    }
}
