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

fn paths(tree: &Tree) -> Vec<String> {
    let ids = (0..tree.nodes.len()).filter(|id| tree.nodes[*id].is_some());
    let mut paths: Vec<_> = ids.map(|id| tree.path(id as NodeId)).collect();
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
    let loaded = Tree::from_image(&bytes).unwrap();
    assert_eq!((loaded.digest(), paths(&loaded)), (digest, before));
    assert_eq!(loaded.ephemerals(SessionId(1)).len(), 33);
    assert_eq!(image(&mut Tree::from_image(&bytes).unwrap(), 1 << 20, |_| ()), bytes);
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
    let a = |tree: &Tree| tree.get("/a").unwrap().hash;
    assert_eq!(a(&one), a(&other));
}

proptest! {
    #[test]
    fn no_image_does_harm(bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let _ = Tree::from_image(&bytes);
        let mut tree = Tree::new();
        create(&mut tree, 1, "/a", 0);
        create(&mut tree, 2, "/a/b", 4);
        let mut whole = image(&mut tree, 1 << 20, |_| ());
        let at = at.index(whole.len());
        whole[at] ^= flip;
        if let Ok(loaded) = Tree::from_image(&whole) {
            // The place in the table is the one thing the digest leaves out.
            prop_assert_eq!(loaded.digest(), tree.digest());
        }
    }
}
