//! Plots, as SVG: lines and text, which need no font of this machine.

use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::{
    ChartBuilder, DrawingArea, IntoDrawingArea, IntoFont, IntoLogRange, LineSeries, PathElement, RGBColor,
    Ranged, SVGBackend, SeriesLabelPosition, WHITE,
};

const SIZE: (u32, u32) = (900, 480);
/// Colours that most people can tell apart (Okabe and Ito 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// The least that a logarithmic axis shows.
const LEAST: f64 = 0.1;

/// One line.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What is drawn.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Latencies reach over several powers of ten; throughput does not.
    pub(crate) is_logarithmic: bool,
    pub(crate) lines: Vec<Line>,
}

impl Plot<'_> {
    /// Writes it to that file.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let drawn = self.draw().with_context(|| format!("{} can't be drawn", path.display()))?;
        std::fs::write(path, drawn).with_context(|| format!("cannot write {}", path.display()))
    }

    fn draw(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            let points = || self.lines.iter().flat_map(|line| line.points.iter());
            let most = |of: fn(&(f64, f64)) -> f64| points().map(of).fold(1.0, f64::max) * 1.05;
            let (x, y) = (0.0..most(|point| point.0), most(|point| point.1));
            if self.is_logarithmic {
                self.lines_on(&area, x, (LEAST..y.max(LEAST * 10.0)).log_scale())?;
            } else {
                self.lines_on(&area, x, 0.0..y)?;
            }
            area.present()?;
        }
        Ok(svg)
    }

    fn lines_on<Y>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        x: std::ops::Range<f64>,
        y: Y,
    ) -> anyhow::Result<()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let font = |size: u32| ("sans-serif", size).into_font();
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, font(20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(font(13))
            .axis_desc_style(font(15))
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points = line.points.iter().map(|(x, y)| (*x, y.max(0.0)));
            chart
                .draw_series(LineSeries::new(points, colour))?
                .label(line.name.as_str())
                .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], *colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(font(13))
            .background_style(WHITE)
            .border_style(RGBColor(200, 200, 200))
            .draw()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_svg_that_names_its_lines() {
        for is_logarithmic in [false, true] {
            let line = Line { name: "p99 & more".to_owned(), points: vec![(100.0, 2.0), (200.0, 30.0)] };
            let plot = Plot { title: "latency", x: "rate", y: "ms", is_logarithmic, lines: vec![line] };
            let svg = plot.draw().unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("p99 &amp; more") && svg.contains("latency"), "{svg}");
        }
        let nothing = Plot { title: "t", x: "x", y: "y", is_logarithmic: true, lines: Vec::new() };
        assert!(nothing.draw().is_ok());
    }
}
