//! Rows of ours beside the ancestor's: medians, spread, ratio.

/// Whether more or less of a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Theirs,
}

impl Side {
    /// The order of a round: it changes from round to round, so that what drifts on the machine favours nobody.
    pub(crate) fn order(round: usize) -> [Self; 2] {
        if round.is_multiple_of(2) {
            [Self::Theirs, Self::Ours]
        } else {
            [Self::Ours, Self::Theirs]
        }
    }
}

/// A table that fills round by round.
#[derive(Debug)]
pub(crate) struct Table {
    ours: String,
    theirs: String,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    better: Better,
    /// A figure of each round.
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Table {
    /// A table of elkfk beside `theirs`.
    pub(crate) fn against(theirs: &str) -> Self {
        Self::of("elkfk", theirs)
    }

    pub(crate) fn of(ours: &str, theirs: &str) -> Self {
        Self { ours: ours.to_owned(), theirs: theirs.to_owned(), rows: Vec::new() }
    }

    /// Adds the figure of one round.
    pub(crate) fn add(
        &mut self,
        side: Side,
        what: &str,
        unit: &'static str,
        better: Better,
        value: f64,
    ) {
        let at = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            let what = what.to_owned();
            self.rows.push(Row { what, unit, better, ours: vec![], theirs: vec![] });
            self.rows.len() - 1
        });
        match side {
            Side::Ours => self.rows[at].ours.push(value),
            Side::Theirs => self.rows[at].theirs.push(value),
        }
    }

    pub(crate) fn print(&self) {
        println!("{}", self.markdown());
    }

    /// The table, and after it the rows in which ours is the worse.
    fn markdown(&self) -> String {
        let mut text = format!(
            "| measured | {} | {} | times better |\n| --- | --- | --- | --- |\n",
            self.ours, self.theirs
        );
        let mut losses = Vec::new();
        for row in &self.rows {
            let ratio = row.times_better();
            // What is printed as 1.00 is no loss.
            if let Some(times) = ratio.filter(|times| *times < 0.995) {
                losses.push(format!("{} ({times:.2})", row.what));
            }
            text += &format!(
                "| {} | {} | {} | {} |\n",
                row.what,
                figures(&row.ours, row.unit),
                figures(&row.theirs, row.unit),
                ratio.map_or("–".to_owned(), |times| format!("{times:.2}")),
            );
        }
        let losses = if losses.is_empty() { "none".to_owned() } else { losses.join("; ") };
        text + &format!("\nLosses: {losses}.\n")
    }
}

impl Row {
    /// How many times better our median is; below 1: worse.
    fn times_better(&self) -> Option<f64> {
        let (ours, theirs) = (median(&self.ours)?, median(&self.theirs)?);
        Some(match self.better {
            Better::More => ours / theirs,
            Better::Less => theirs / ours,
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        Some((sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0)
    } else {
        sorted.get(middle).copied()
    }
}

/// `median (least..greatest) unit`, of one value only that value.
fn figures(values: &[f64], unit: &str) -> String {
    let Some(middle) = median(values) else { return "–".to_owned() };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() == 1 {
        return format!("{} {unit}", figure(middle));
    }
    format!("{} ({}..{}) {unit}", figure(middle), figure(least), figure(greatest))
}

fn figure(value: f64) -> String {
    if value >= 1000.0 {
        let digits = format!("{value:.0}");
        let grouped: Vec<_> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
            .collect();
        return grouped.join(",");
    }
    if value >= 10.0 { format!("{value:.1}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_median_spread_ratio_and_is_named_when_lost() {
        let mut table = Table::against("Kafka");
        for (ours, theirs) in [(300.0, 100.0), (100.0, 110.0), (200.0, 90.0)] {
            table.add(Side::Ours, "produce", "MB/s", Better::More, ours);
            table.add(Side::Theirs, "produce", "MB/s", Better::More, theirs);
        }
        table.add(Side::Ours, "CPU", "s", Better::Less, 4.0);
        table.add(Side::Theirs, "CPU", "s", Better::Less, 2.0);
        table.add(Side::Ours, "alone", "s", Better::Less, 1234.5);
        assert_eq!(
            table.markdown(),
            "| measured | elkfk | Kafka | times better |\n| --- | --- | --- | --- |\n\
             | produce | 200.0 (100.0..300.0) MB/s | 100.0 (90.0..110.0) MB/s | 2.00 |\n\
             | CPU | 4.00 s | 2.00 s | 0.50 |\n\
             | alone | 1,234 s | – | – |\n\
             \nLosses: CPU (0.50).\n"
        );
    }
}
