"""What the papers state of themselves, and which sweep stands for which table or figure."""

# Averages from the abstracts: the rows of the tables are not public in a form that could be
# checked, so none is repeated here. Their data are closed, and are not the ones used here.
STATEMENTS = [
    {
        "what": "DWA with DAS and LoRA, average improvement in MSE over previous work",
        "figure": "12.36 %",
        "source": "Dynamic Multi-Task Weight Adaptation, OpenReview QIht9mksbL, abstract",
    },
    {
        "what": "the precursor (DAO), improvement in MSE over previous work",
        "figure": "15.58 %",
        "source": "arXiv 2408.11856, abstract",
    },
    {
        "what": "the precursor (DAO), improvement in accuracy over previous work",
        "figure": "1.24 %",
        "source": "arXiv 2408.11856, abstract",
    },
]

TABLES = {
    "2": "table2",
    "3": "table3",
    "4": "table4",
    "5": "table5",
    "a11": "table_a11",
    "a12": "table_a12",
    "a13": "table_a13",
}
FIGURES = {"2": "figure2", "3": "figure3", "6": "figure6"}
