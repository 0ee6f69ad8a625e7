//! The imported state as files of ours.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use elkfk_base::durable::DataDirectory;

use super::state::{State, parent};
use super::{ImportConfig, ImportError, Imported};
use crate::machine::{Machine, Session};
use crate::server::{claim, data_path};
use crate::snapshots::SnapshotWriter;
use crate::tree::Tree;
use crate::wal;
use crate::wal::disk::Directory;

/// The entry that the snapshot stands for: nothing comes before it.
const INDEX: u64 = 1;
const TERM: u64 = 1;
const PIECE_BYTES: usize = 128 << 10;
/// Names the old ensemble's servers, where it was one.
const CONFIG_PATH: &str = "/zookeeper/config";

/// Refuses to write where this program has data already.
pub(super) fn refuse_taken(config: &ImportConfig) -> Result<(), ImportError> {
    for directory in [Some(&config.to), config.to_log_dir.as_ref()].into_iter().flatten() {
        let path = data_path(directory);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ImportError::Read { path, source }),
        };
        for entry in entries {
            let name = entry
                .map_err(|source| ImportError::Read { path: path.clone(), source })?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if name.starts_with("log-") || name.starts_with("snapshot") {
                return Err(ImportError::NotEmpty { path, name });
            }
        }
    }
    Ok(())
}

pub(super) fn write(
    config: &ImportConfig,
    mut state: State,
    done: &mut Imported,
) -> Result<(), ImportError> {
    state.add_own();
    if let Some(node) = state.nodes.get_mut(CONFIG_PATH)
        && node.data.as_ref().is_some_and(|data| !data.is_empty())
    {
        node.data = Some(Box::default());
        done.warnings.push(format!(
            "the data of {CONFIG_PATH} is not taken over: it names the servers of the old ensemble"
        ));
    }
    let sessions = std::mem::take(&mut state.sessions);
    let zxid = state.zxid;
    let tree = tree(state)?;
    done.znodes = tree.len();
    let sessions = sessions.into_iter().map(|(id, timeout_ms)| {
        // Connected nowhere: each waits out its timeout.
        (id, Session { timeout_ms: timeout_ms.max(0), server: 0 })
    });
    let mut machine = Machine::imported(tree, sessions.collect(), zxid, TERM, INDEX);

    let (_claimed, path) = open(&config.to)?;
    let mut log_path = path.clone();
    let mut _claimed_log = None;
    if let Some(directory) = &config.to_log_dir {
        let (claimed, path) = open(directory)?;
        (_claimed_log, log_path) = (Some(claimed), path);
    }
    // The snapshot first: without its log a server refuses it, while an empty log alone would start.
    let failed = |source| ImportError::Write { path: path.clone(), source };
    done.written = path.join(write_snapshot(&path, &mut machine).map_err(failed)?);
    wal::start_after(Directory::new(&log_path), INDEX)
        .map_err(|source| ImportError::Write { path: log_path.clone(), source })
}

fn open(directory: &Path) -> Result<(DataDirectory, std::path::PathBuf), ImportError> {
    let path = data_path(directory);
    let claimed = claim(&path)?;
    Ok((claimed, path))
}

fn write_snapshot(path: &Path, machine: &mut Machine) -> io::Result<String> {
    let mut writer = SnapshotWriter::start(Directory::new(path), INDEX)?;
    writer.write(&machine.start_image())?;
    while let Some((piece, _)) = machine.tree.next_image_piece(PIECE_BYTES) {
        writer.write(&piece)?;
    }
    writer.finish()?;
    Ok(crate::snapshots::name(INDEX))
}

fn tree(state: State) -> Result<Tree, ImportError> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(state.nodes.len());
    let mut nodes = Vec::with_capacity(state.nodes.len());
    // In the order of their paths parents come before their children.
    for (path, node) in state.nodes {
        let above = parent(&path);
        let Some(parent) = places.get(above).copied().or(path.is_empty().then_some(0)) else {
            return Err(ImportError::NoTree(format!("{path:?} has no parent {above:?}")));
        };
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        places.insert(path, nodes.len());
        nodes.push((parent, name, node));
    }
    Tree::assemble(nodes).map_err(|why| ImportError::NoTree(why.to_string()))
}
