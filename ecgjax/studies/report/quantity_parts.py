"""Parts of the page of a quantity: predicted against true values, and their agreement."""

from __future__ import annotations

from ecgjax.pages.page import Block, Paragraph, Picture, Section, Table
from ecgjax.studies.model_names import REFERENCE
from ecgjax.studies.one_task.pipeline import OneTask
from ecgjax.studies.one_task.quantity import one_a_patient
from ecgjax.studies.report.model_figures import bland_altman_figure, panels_figure, scatter_figure
from ecgjax.studies.report.parts import Parts, quantity_name
from ecgjax.studies.report.report_tables import decimals_of, outputs_of, titles


class QuantityParts(Parts):
    """Parts of the page of a quantity; see `Parts`."""

    of_groups = "Bias is the mean of predicted minus true values."

    def results(self, one: OneTask) -> list[Block]:
        """Returns a paragraph on R² and correlation where they are low or missing."""
        del one
        text = (
            "A constant prediction has no correlation (n/a). R² is below 0 where predictions are farther from the "
            "truth than the test records' own mean."
        )
        return [Paragraph(text)]

    def sections(self, one: OneTask) -> list[Section]:
        """Returns a list with the section on predicted and true values."""
        test, name, outputs = one.data.test, quantity_name(one), outputs_of(one)
        figure = scatter_figure(test.labels, outputs[REFERENCE], name=name, title=titles(one)[REFERENCE])
        panels = {titles(one)[model]: values for model, values in outputs.items()}
        one_model = Picture(
            figure=figure,
            alt=f"Predicted against true {name} of the test records, pretrained encoder's probe.",
            caption=f"{len(test.records):,} test records; both values are equal on the dashed line.",
            vector=False,
        )
        all_models = Picture(
            figure=panels_figure(test.labels, panels, name=name),
            alt=f"Predicted against true {name} of the test records, with one panel per model.",
            caption="All models; predicted and true values are equal on the dashed line.",
            vector=False,
        )
        agreement = _agreement(one) if one.facts["agreement"] else []
        return [Section("Predicted and true values", [one_model, *agreement, all_models])]


def _agreement(one: OneTask) -> list[Block]:
    test, name = one.data.test, quantity_name(one)
    # The figure shows the records that the limits were computed from.
    rows, agreement = one_a_patient(test.patients), one.facts["agreement"]
    figure = bland_altman_figure(
        test.labels[rows], outputs_of(one)[REFERENCE][rows], agreement=agreement[REFERENCE], name=name,
        unit=one.report.unit, title=titles(one)[REFERENCE],
    )  # fmt: skip
    return [
        Picture(
            figure=figure,
            alt=f"Predicted minus true {name} against the mean of both, with bias and limits of agreement.",
            caption=f"Bland–Altman plot of the first test record of each of {len(rows):,} patients; bands are 95 % "
            "intervals.",
            vector=False,
        ),
        _agreement_table(one),
        Paragraph(
            "Bias is the mean of predicted minus true values; 95 % of the differences lie within the limits if they "
            "are normally distributed. Only the first record of each patient is used, since the intervals (Student's "
            "t) take records as independent. A sloping cloud means that predictions vary less than the truth."
        ),
    ]


def _agreement_table(one: OneTask) -> Table:
    of_unit = f", {one.report.unit}" if one.report.unit else ""
    rows = []
    for model, each in one.facts["agreement"].items():
        values = ((getattr(each, of), *getattr(each, f"{of}_interval")) for of in ("bias", "lower", "upper"))
        digits = f"+z.{decimals_of(one)}f"
        texts = (f"{value:{digits}} [{low:{digits}}, {high:{digits}}]" for value, low, high in values)
        rows.append((titles(one)[model], *texts, f"{each.number:,}"))
    header = ("model", f"bias{of_unit}", f"lower limit{of_unit}", f"upper limit{of_unit}", "patients")
    return Table(header=header, rows=rows, caption="Limits of agreement")
