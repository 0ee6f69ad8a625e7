use proptest::prelude::*;

use super::*;

fn change(zxid: i64) -> Change {
    Change { zxid: Zxid(zxid), time_ms: zxid * 10 }
}

fn create(tree: &mut Tree, zxid: i64, path: &str, owner: i64) -> Vec<Undo> {
    let (parent, name) = elkfk_wire::jute::parent_and_name(path).unwrap();
    let parent = tree.find(parent).unwrap();
    let mut undo = Vec::new();
    let data = Some(&b"data"[..]);
    let new = NewNode { name, data, acl: vec![Acl::OPEN], owner: SessionId(owner) };
    tree.create(change(zxid), parent, new, &mut undo);
    undo
}

/// All an image says, in pieces of `piece_bytes` with `between` called after each.
fn image(tree: &mut Tree, piece_bytes: usize, mut between: impl FnMut(&mut Tree)) -> Vec<u8> {
    tree.start_image();
    let mut bytes = Vec::new();
    loop {
        let (piece, is_last) = tree.next_image_piece(piece_bytes).unwrap();
        bytes.extend(piece);
        if is_last {
            return bytes;
        }
        between(tree);
    }
}

fn from_image(bytes: &[u8]) -> Result<Tree, ImageError> {
    let mut image = TreeReader::new();
    image.piece(bytes)?;
    image.finish()
}

fn paths(tree: &Tree) -> Vec<String> {
    let ids = (0..tree.nodes.len() as NodeId).filter(|id| tree.nodes.get(*id).is_some());
    let mut paths: Vec<_> = ids.map(|id| tree.path(id)).collect();
    paths.sort();
    paths
}

#[test]
fn a_new_tree_is_zookeepers() {
    let tree = Tree::new();
    assert_eq!(paths(&tree), ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]);
    let stat = tree.get("/").unwrap().stat();
    assert_eq!((stat.cversion, stat.num_children), (-1, 1));
    assert_eq!(tree.get("/zookeeper/config").unwrap().stat().aversion, -1);
    for (path, is_there) in [("/", true), ("", false), ("zookeeper", false), ("/nosuch", false)] {
        assert_eq!(tree.find(path).is_some(), is_there, "{path:?}");
    }
}

#[test]
fn changes_taken_back_leave_no_trace() {
    let mut tree = Tree::new();
    create(&mut tree, 1, "/a", 0);
    create(&mut tree, 2, "/a/e", 7);
    let (digest, bytes) = (tree.digest(), tree.data_bytes());
    let mut undo = create(&mut tree, 3, "/a/b", 0);
    let (a, e) = (tree.find("/a").unwrap(), tree.find("/a/e").unwrap());
    tree.set_data(change(3), a, Some(b"longer data"), &mut undo);
    tree.set_acl(a, vec![Acl { perms: 1, ..Acl::OPEN }], &mut undo);
    tree.delete(change(3), e, &mut undo);
    undo.extend(create(&mut tree, 3, "/a/e", 0));
    undo.extend(create(&mut tree, 3, "/c", 9));
    assert_ne!(tree.digest(), digest);
    tree.roll_back(undo);
    assert_eq!((tree.digest(), tree.data_bytes()), (digest, bytes));
    assert_eq!(tree.ephemerals(SessionId(7)), ["/a/e"]);
    assert_eq!(tree.ephemeral_owners(), [SessionId(7)]);
    assert_eq!(tree.get("/a").unwrap().stat().cversion, 1);
}

#[test]
fn an_image_is_of_the_moment_it_was_started() {
    let mut tree = Tree::new();
    for i in 0..100 {
        create(&mut tree, i, &format!("/n{i}"), i % 3);
    }
    let (digest, before) = (tree.digest(), paths(&tree));
    let mut zxid = 1000;
    let bytes = image(&mut tree, 500, |tree| {
        // Behind the writer, before it, new places and used ones.
        zxid += 1;
        let mut undo = Vec::new();
        for path in [format!("/n{}", zxid % 100), format!("/n{}", 1999 - zxid)] {
            if let Some(id) = tree.find(&path) {
                tree.set_data(change(zxid), id, None, &mut undo);
                if zxid % 3 == 0 {
                    tree.delete(change(zxid), id, &mut undo);
                }
            }
        }
        let undo = create(tree, zxid, &format!("/new{zxid}"), 5);
        if zxid % 2 == 0 {
            tree.roll_back(undo);
        }
    });
    assert_ne!(tree.digest(), digest);
    let loaded = from_image(&bytes).unwrap();
    assert_eq!((loaded.digest(), paths(&loaded)), (digest, before));
    assert_eq!(loaded.ephemerals(SessionId(1)).len(), 33);
    // In other places now, since some were saved before their turn; from then on in the same.
    let bytes = image(&mut from_image(&bytes).unwrap(), 1 << 20, |_| ());
    let mut loaded = from_image(&bytes).unwrap();
    assert_eq!(loaded.digest(), digest);
    assert_eq!(image(&mut loaded, 1 << 20, |_| ()), bytes);
}

#[test]
fn equal_changes_make_equal_digests_whatever_was_before() {
    let (mut one, mut other) = (Tree::new(), Tree::new());
    create(&mut other, 1, "/passing", 0);
    let id = other.find("/passing").unwrap();
    let mut undo = create(&mut other, 1, "/kept", 0);
    other.delete(change(1), id, &mut undo);
    other.roll_back(undo);
    let mut undo = Vec::new();
    other.delete(change(1), other.find("/passing").unwrap(), &mut undo);
    create(&mut one, 2, "/a", 0);
    create(&mut other, 2, "/a", 0);
    let a = |tree: &Tree| tree.hash(tree.find("/a").unwrap());
    assert_eq!(a(&one), a(&other));
}

/// Snapshots that lie on disks hold it, and servers of different builds compare it.
#[test]
fn a_digest_is_the_same_for_ever() {
    let mut tree = Tree::new();
    for (zxid, path, owner) in
        [(1, "/a", 0), (2, "/a/é", 7), (3, "/a/b", 0), (4, "/a/b/c", i64::MIN)]
    {
        create(&mut tree, zxid, path, owner);
    }
    let a = tree.find("/a").unwrap();
    tree.set_data(change(5), a, None, &mut Vec::new());
    tree.set_acl(a, vec![Acl { perms: 1, ..Acl::OPEN }], &mut Vec::new());
    tree.delete(change(6), tree.find("/a/b/c").unwrap(), &mut Vec::new());
    let bytes = image(&mut tree, 1 << 20, |_| ());
    assert_eq!((tree.digest(), crc32fast::hash(&bytes)), (16716292393180441802, 288870858));
}

proptest! {
    #[test]
    fn no_image_does_harm(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let _ = from_image(&bytes);
        let mut tree = Tree::new();
        create(&mut tree, 1, "/a", 0);
        create(&mut tree, 2, "/a/b", 4);
        let mut whole = image(&mut tree, 1 << 20, |_| ());
        let at = at.index(whole.len());
        whole[at] ^= flip;
        if let Ok(loaded) = from_image(&whole) {
            // The place in the table is the one thing the digest leaves out.
            prop_assert_eq!(loaded.digest(), tree.digest());
        }
    }
}

/// What a tree says of itself, against what its paths say.
fn check_whole(tree: &Tree, expected: &std::collections::BTreeSet<String>) {
    let found: Vec<_> = paths(tree).into_iter().filter(|path| path.starts_with("/n")).collect();
    assert!(found.iter().eq(expected), "{} of {}", found.len(), expected.len());
    for path in expected {
        let below = expected.iter().filter(|other| other.starts_with(&format!("{path}/"))).count();
        let node = tree.get(path).unwrap();
        assert_eq!(node.descendants() as usize, below, "{path}");
    }
    let names = |id| tree.children(id).map(|id| tree.node(id).name().to_owned());
    assert!(names(tree.find("/").unwrap()).is_sorted());
}

#[test]
fn children_are_found_whatever_order_they_came_and_went_in() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(1);
    let mut tree = Tree::new();
    let mut there = std::collections::BTreeSet::new();
    for round in 0..12_000_i64 {
        // Grows, then shrinks, then grows again: chunks are halved, joined and emptied.
        let grows = random.random_bool(if (5000..9000).contains(&round) { 0.2 } else { 0.9 });
        let path = format!("/n{:05}", random.random_range(0..6000));
        if grows && !there.contains(&path) {
            create(&mut tree, round, &path, 0);
            there.insert(path);
        } else if !grows {
            let Some(path) = there.range(path..).next().cloned() else { continue };
            let id = tree.find(&path).unwrap();
            tree.delete(change(round), id, &mut Vec::new());
            there.remove(&path);
        }
    }
    assert!(there.len() > 2000, "{}", there.len());
    for path in ["/n00000/a", "/n00000/a/b", "/n00000/c"] {
        if path == "/n00000/a" && !there.contains("/n00000") {
            create(&mut tree, 1, "/n00000", 0);
            there.insert("/n00000".to_owned());
        }
        create(&mut tree, 1, path, 0);
        there.insert(path.to_owned());
    }
    check_whole(&tree, &there);
    let mut loaded = from_image(&image(&mut tree, 1 << 10, |_| ())).unwrap();
    check_whole(&loaded, &there);
    for path in there.iter().rev() {
        let id = loaded.find(path).unwrap();
        loaded.delete(change(1), id, &mut Vec::new());
    }
    assert_eq!((loaded.get("/").unwrap().descendants(), loaded.len()), (3, 4));
}

/// One change of any kind, by a random number for each choice.
fn any_change(tree: &mut Tree, zxid: i64, choice: u8, which: u8, undo: &mut Vec<Undo>) {
    let ids: Vec<_> =
        (0..tree.nodes.len() as NodeId).filter(|id| tree.nodes.get(*id).is_some()).collect();
    let id = ids[which as usize % ids.len()];
    let data = [&[][..], &[7; 3], &[8; 200]][which as usize % 3];
    match choice % 6 {
        0 | 1 => {
            let name = format!("n{}", zxid % 7);
            if tree.child(id, &name).is_none() {
                let owner = [0, 5, CONTAINER_OWNER.0][which as usize % 3];
                let (data, owner) =
                    (Some(data).filter(|_| !which.is_multiple_of(5)), SessionId(owner));
                let acl = vec![Acl { perms: 1 + i32::from(which % 2), ..Acl::OPEN }];
                let new = NewNode { name: &name, data, acl, owner };
                tree.create(change(zxid), id, new, undo);
            }
        }
        2 if tree.node(id).children_len() == 0 && id > 3 => tree.delete(change(zxid), id, undo),
        3 => tree.set_data(change(zxid), id, Some(data), undo),
        4 => tree.set_data(change(zxid), id, None, undo),
        _ => tree.set_acl(id, vec![Acl { perms: i32::from(which % 32), ..Acl::OPEN }], undo),
    }
}

/// The digest is kept up with each change; read from an image it is worked out anew.
fn check_digest(tree: &mut Tree) {
    let loaded = from_image(&image(tree, 300, |_| ())).unwrap();
    assert_eq!((loaded.digest(), paths(&loaded)), (tree.digest(), paths(tree)));
    assert_eq!((loaded.data_bytes, loaded.path_chars), (tree.data_bytes, tree.path_chars));
    for path in paths(tree) {
        let (one, other) = (tree.get(&path).unwrap(), loaded.get(&path).unwrap());
        assert_eq!((one.stat(), one.data()), (other.stat(), other.data()), "{path}");
        assert_eq!(one.descendants(), other.descendants(), "{path}");
    }
}

proptest! {
    #[test]
    fn whatever_changes_and_is_taken_back_the_digest_follows(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 1..120),
        multi in 1usize..9,
    ) {
        let mut tree = Tree::new();
        for path in ["/zookeeper/quota/n1", "/zookeeper/quota/n1/zookeeper_limits"] {
            create(&mut tree, 0, path, 0);
        }
        create(&mut tree, 0, "/zookeeper/quota/n1/zookeeper_stats", 0);
        // Every third multi is taken back; an image is taken while the others go on.
        tree.start_image();
        let (digest, mut pieces) = (tree.digest(), Vec::new());
        for (at, changes) in choices.chunks(multi).enumerate() {
            let (before, mut undo) = (tree.digest(), Vec::new());
            for (choice, which) in changes {
                any_change(&mut tree, at as i64 + 1, *choice, *which, &mut undo);
            }
            if at % 3 == 1 {
                tree.roll_back(undo);
                prop_assert_eq!(tree.digest(), before);
            }
            pieces.extend(tree.next_image_piece(1));
        }
        while pieces.last().is_none_or(|(_, is_last)| !is_last) {
            pieces.extend(tree.next_image_piece(1));
        }
        let mut whole = TreeReader::new();
        pieces.iter().for_each(|(piece, _)| whole.piece(piece).unwrap());
        prop_assert_eq!(whole.finish().unwrap().digest(), digest);
        check_digest(&mut tree);
    }
}

#[test]
fn a_znode_is_small_and_a_walk_over_free_places_is_cut_into_pieces() {
    // With name, data of 100 bytes and its place below its parent some 230 bytes in all.
    assert!(size_of::<Option<Node>>() <= 88, "{}", size_of::<Option<Node>>());
    let mut tree = Tree::new();
    for i in 0..150_000 {
        create(&mut tree, i, &format!("/n{i}"), 0);
    }
    // The one that is left stands behind far more free places than its image has bytes.
    for i in 0..149_999 {
        let id = tree.find(&format!("/n{i}")).unwrap();
        tree.delete(change(i), id, &mut Vec::new());
    }
    let (digest, mut pieces) = (tree.digest(), 1);
    let bytes = image(&mut tree, 1 << 20, |_| pieces += 1);
    assert_eq!(pieces, 3, "of 65536 places at most, full or not");
    let loaded = from_image(&bytes).unwrap();
    assert_eq!((loaded.digest(), loaded.nodes.len()), (digest, tree.len()), "no place is free");
}

#[test]
#[ignore = "measures memory and time, for people: cargo test --release -p elkfk-coordinator -- --ignored --nocapture million"]
fn a_million_znodes() {
    let resident_bytes = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    println!("a node is {} bytes", size_of::<Option<Node>>());
    for parents in [1, 1000, 100_000] {
        let before = resident_bytes();
        let started = std::time::Instant::now();
        let mut tree = Tree::new();
        let mut made = Vec::new();
        for i in 0..parents {
            create(&mut tree, i, &format!("/p{i}"), 0);
            made.push(tree.find(&format!("/p{i}")).unwrap());
        }
        for i in 0..1_000_000 {
            let name = format!("znode-{i:07}");
            let new = NewNode {
                name: &name,
                data: Some(&[7; 100]),
                acl: vec![Acl::OPEN],
                owner: SessionId(0),
            };
            let parent = made[i as usize % made.len()];
            tree.create(change(i), parent, new, &mut Vec::new());
        }
        let created = started.elapsed();
        let bytes = resident_bytes() - before;
        let started = std::time::Instant::now();
        tree.start_image();
        let start = started.elapsed();
        let (mut worst, mut whole) = (std::time::Duration::ZERO, 0);
        loop {
            let started = std::time::Instant::now();
            let (piece, is_last) = tree.next_image_piece(256 << 10).unwrap();
            worst = worst.max(started.elapsed());
            whole += piece.len();
            if is_last {
                break;
            }
        }
        println!(
            "under {parents} parents: {} B each by RSS, made in {created:?}; image of {} MB started in {start:?}, worst piece {worst:?}",
            bytes / 1_000_000,
            whole >> 20,
        );
    }
}
