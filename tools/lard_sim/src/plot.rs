// SPDX-License-Identifier: GPL-2.0

//! Figures: the same numbers as a table (CSV) and as a drawing (SVG).

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::fs;
use std::path::Path;

/// A line of a figure.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// A figure.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// The name of its files.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What is along the bottom.
    pub x: String,
    /// What is along the side.
    pub y: String,
    /// Are there factors, not differences, along the bottom?
    pub log_x: bool,
    /// Its lines.
    pub series: Vec<Series>,
}

/// Width and height in pixels: as two fit on a page.
const SIZE: (u32, u32) = (640, 420);

/// Colours that are told apart in print and by most eyes (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(127, 127, 127),
];

impl Figure {
    /// A figure without lines.
    pub fn new(name: &str, title: &str, x: &str, y: &str) -> Self {
        Figure {
            name: name.into(),
            title: title.into(),
            x: x.into(),
            y: y.into(),
            ..Figure::default()
        }
    }

    /// Adds a point to the line with this name, which is made if there is none.
    pub fn add(&mut self, series: &str, x: f64, y: f64) {
        match self.series.iter_mut().find(|s| s.name == series) {
            Some(known) => known.points.push((x, y)),
            None => self.series.push(Series {
                name: series.into(),
                points: vec![(x, y)],
            }),
        }
    }

    /// The value of a line at `x`.
    pub fn at(&self, series: &str, x: f64) -> Option<f64> {
        let series = self.series.iter().find(|s| s.name == series)?;
        let point = series.points.iter().find(|p| p.0 == x)?;
        Some(point.1)
    }

    /// Writes `name.csv` and `name.svg` into a directory.
    pub fn save(&self, dir: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(dir)?;
        let mut table = csv::Writer::from_path(dir.join(format!("{}.csv", self.name)))?;
        table.write_record(["series", &self.x, &self.y])?;
        for series in &self.series {
            for (x, y) in &series.points {
                table.write_record([&series.name, &x.to_string(), &y.to_string()])?;
            }
        }
        table.flush()?;
        self.draw_into(&dir.join(format!("{}.svg", self.name)))
    }

    /// Writes the drawing alone.
    pub fn draw_into(&self, path: &Path) -> Result<(), Box<dyn Error>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let xs = || self.series.iter().flat_map(|s| &s.points).map(|p| p.0);
        let (low, high) = (xs().fold(f64::MAX, f64::min), xs().fold(f64::MIN, f64::max));
        if self.log_x {
            self.draw(&area, (low..high).log_scale())?;
        } else {
            self.draw(&area, low.min(0.0)..high)?;
        }
        area.present()?;
        Ok(())
    }

    fn draw<X>(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, x: X) -> Result<(), Box<dyn Error>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let ys = self.series.iter().flat_map(|s| &s.points).map(|p| p.1);
        let top = ys.fold(0.0, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 17))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(66)
            .build_cartesian_2d(x, 0.0..top.max(f64::MIN_POSITIVE))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.12))
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .label_style(("sans-serif", 13))
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points = || series.points.iter().copied();
            let line = LineSeries::new(points(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(&series.name)
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            // Points that lie too close only hide the line.
            if series.points.len() <= 20 {
                chart.draw_series(points().map(|p| Circle::new(p, 3, colour.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 13))
            .draw()?;
        Ok(())
    }
}

/// A label of an axis: no more digits than it needs.
fn number(value: &f64) -> String {
    let value = *value;
    match value.abs() {
        v if v >= 1e6 => format!("{} M", digits(value / 1e6)),
        v if v >= 1e4 => format!("{} k", digits(value / 1e3)),
        _ => digits(value),
    }
}

fn digits(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_tables_and_drawings() {
        let mut figure = Figure::new("test-figure", "Lines", "nodes", "speed");
        for x in [1.0, 2.0, 4.0] {
            figure.add("one", x, x);
            figure.add("two, with a comma", x, 100.0 * x);
        }
        assert_eq!(figure.at("one", 2.0), Some(2.0));
        let dir = std::env::temp_dir().join(format!("lard_sim-plot-{}", std::process::id()));
        for log_x in [false, true] {
            figure.log_x = log_x;
            figure.save(&dir).unwrap();
            let svg = fs::read_to_string(dir.join("test-figure.svg")).unwrap();
            assert!(svg.contains("two, with a comma") && svg.contains("polyline"));
        }
        let csv = fs::read_to_string(dir.join("test-figure.csv")).unwrap();
        assert_eq!(csv.lines().count(), 7);
        assert!(csv.contains("\"two, with a comma\",4,400"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn labels_are_short() {
        assert_eq!(number(&0.0), "0");
        assert_eq!(number(&0.5), "0.5");
        assert_eq!(number(&12_500.0), "12.5 k");
        assert_eq!(number(&3e6), "3 M");
    }
}
