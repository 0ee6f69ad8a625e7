//! What the writer and its log rotation do to the files.

use super::*;

impl Sim {
    pub(super) fn rotated(&self) -> Vec<String> {
        let volume = self.disk.lock();
        volume.names.keys().filter(|name| *name != "app.log").cloned().collect()
    }

    /// app.log.1 → app.log.2, compressed or not.
    pub(super) fn shift(&mut self) {
        let mut names = self.rotated();
        names.sort_by_key(|name| std::cmp::Reverse(number_of(name)));
        for name in names {
            let number = number_of(&name);
            let to = name.replace(&format!(".{number}"), &format!(".{}", number + 1));
            self.disk.lock().rename(&name, &to);
        }
    }

    pub(super) fn rotate_by_rename(&mut self) {
        self.note("rename");
        self.finish_line();
        self.shift();
        self.disk.lock().rename("app.log", "app.log.1");
        if self.rng.random_bool(0.5) {
            self.run(3);
            // The program has not been told yet.
            self.write();
            self.finish_line();
        }
        let mut volume = self.disk.lock();
        let old = std::mem::replace(&mut self.writer, 0);
        self.writer = volume.create("app.log", Vec::new());
        let new = self.writer;
        volume.inodes.get_mut(&new).expect("created").handles += 1;
        volume.inodes.get_mut(&old).expect("held").handles -= 1;
        volume.sweep();
        drop(volume);
        self.banner();
    }

    /// Where the pattern does not name rotated files, what no registry tells of is not found once it
    /// was renamed: by us as little as by Filebeat.
    pub(super) fn may_rotate(&self) -> bool {
        let is_known = |engine: &VirtualEngine| {
            let mut sources = engine.sources.iter().flatten();
            let volume = self.disk.lock();
            let writer = volume.stat(self.writer).map(|stat| stat.id);
            sources.any(|source| {
                source.state.file == writer
                    && source.durable_with <= engine.synced
                    && volume.inodes[&self.writer].data.len() as u64 >= source.position()
                    && source.state.head.matches(&volume.inodes[&self.writer].data)
                    // Lives of which only the banner was met look all the same.
                    && !(self.has_banner && usize::from(source.state.head.bytes) <= BANNER.len() + 1)
            })
        };
        self.config.inputs[0].paths[0].ends_with('*') || self.engine.as_ref().is_some_and(is_known)
    }

    pub(super) fn banner(&mut self) {
        if self.has_banner {
            self.disk.lock().append(self.writer, format!("{BANNER}\n").as_bytes());
        }
    }

    pub(super) fn rotate_by_copy(&mut self) {
        self.note("copytruncate");
        if self.rng.random_bool(0.7) {
            self.finish_line();
        }
        self.shift();
        let copy = self.disk.lock().inodes[&self.writer].data.clone();
        let half = self.rng.random_range(0..=copy.len());
        let number = self.disk.lock().create("app.log.1", copy[..half].to_vec());
        if self.rng.random_bool(0.3) {
            // The copy is seen while it grows.
            self.run(2);
        }
        self.disk.lock().append(number, &copy[half..]);
        match self.rng.random_range(0..10) {
            0..3 => self.run(2),
            3..6 => {
                // In the middle of a turn.
                let looks = self.rng.random_range(0..40);
                self.disk.lock().fuse = Some((looks, self.writer));
                self.run(2);
            }
            _ => {}
        }
        let mut volume = self.disk.lock();
        if volume.fuse.is_some() || !volume.inodes[&self.writer].data.is_empty() {
            volume.truncate(self.writer);
        }
        drop(volume);
        if let Some(rest) = &self.unfinished {
            // Its first half stands in the copy, its second will stand in the file: neither is whole.
            let line = self.lines.pop().expect("it was begun");
            let written = &line[..line.len() - rest.len()];
            if !written.is_empty() {
                self.lines.push(written.to_string());
            }
            self.lines.push(rest.clone());
        }
        self.banner();
    }

    pub(super) fn compress(&mut self) {
        let names =
            self.rotated().into_iter().filter(|name| !name.ends_with(".gz")).collect::<Vec<_>>();
        // The newest stays as it is, as with delaycompress: the program may still write to it.
        let Some(name) = names.into_iter().rfind(|name| number_of(name) > 1) else {
            return;
        };
        self.note(format!("compress {name}"));
        let data = {
            let volume = self.disk.lock();
            volume.inodes[&volume.names[&name]].data.clone()
        };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&data).expect("into memory");
        let bytes = encoder.finish().expect("into memory");
        let half = self.rng.random_range(0..=bytes.len());
        let number = self.disk.lock().create(&format!("{name}.gz"), bytes[..half].to_vec());
        if self.rng.random_bool(0.5) {
            self.run(2);
        }
        self.disk.lock().append(number, &bytes[half..]);
        if self.rng.random_bool(0.5) {
            self.run(2);
        }
        self.disk.lock().unlink(&name);
    }

    /// Deletes the oldest file, once the shipper holds it open or has read it.
    pub(super) fn delete(&mut self) {
        let names = self.rotated();
        let Some(name) =
            names.into_iter().filter(|name| number_of(name) > 2).max_by_key(|name| number_of(name))
        else {
            return;
        };
        self.start();
        self.finish_line();
        self.cluster.lock().expect("no panic").is_up = true;
        self.settle();
        self.note(format!("delete {name}"));
        self.disk.lock().unlink(&name);
    }

    /// Truncates the file without a copy, once all of it has arrived.
    pub(super) fn truncate(&mut self) {
        self.start();
        self.finish_line();
        self.cluster.lock().expect("no panic").is_up = true;
        self.settle();
        self.note("truncate");
        self.disk.lock().truncate(self.writer);
        self.banner();
        self.write();
        let turns = self.rng.random_range(1..12);
        self.run(turns);
        if self.rng.random_bool(0.7) {
            self.kill();
        }
    }

    /// Deletes a file that its program still has open and goes on writing to, as long as we hold it.
    pub(super) fn delete_while_written(&mut self) {
        let Some(name) = self.rotated().into_iter().find(|name| number_of(name) == 1) else {
            return;
        };
        if name.ends_with(".gz") {
            return;
        }
        self.start();
        self.finish_line();
        self.cluster.lock().expect("no panic").is_up = true;
        self.settle();
        self.note(format!("delete {name} while it is written to"));
        let old = {
            let mut volume = self.disk.lock();
            let old = volume.names[&name];
            volume.inodes.get_mut(&old).expect("listed").handles += 1;
            old
        };
        let source = |sim: &Self| {
            let id = sim.disk.lock().stat(old).map(|stat| stat.id);
            let engine = sim.engine.as_ref().expect("started");
            let mut sources = engine.sources.iter().flatten();
            sources.find(|source| source.state.file == id).map(|source| source.file.is_some())
        };
        let is_held = |sim: &Self| source(sim) == Some(true);
        if source(self).is_none() {
            // A copy of what still goes on: nobody writes to such.
            self.disk.lock().inodes.get_mut(&old).expect("held").handles -= 1;
            return;
        }
        let writer = std::mem::replace(&mut self.writer, old);
        self.write();
        self.finish_line();
        self.run(20);
        if is_held(self) {
            self.disk.lock().unlink(&name);
            for _ in 0..200 {
                if !is_held(self) {
                    break;
                }
                if self.rng.random_bool(0.05) {
                    self.write();
                    self.finish_line();
                }
                let time = Duration::from_millis(self.rng.random_range(0..700));
                self.pass(time);
                self.run(1);
            }
        }
        self.settle();
        self.writer = writer;
        let mut volume = self.disk.lock();
        volume.inodes.get_mut(&old).expect("held").handles -= 1;
        volume.sweep();
    }
}
