"""Names for planted captions in sets whose captions are class names, and colors for tints."""

NAMES = (  # noqa: SIM905  (as a list, 240 lines)
    "abelard adair adela aldous alma alvar amias anselm anthea arden arlo astrid aubin auden aurel balder basil beatrix benno bertil "
    "birger blythe boris bruno cadel calla caspar cedric celia ciaran clement corin cosima cyril damaris darian dashiell delia denholm "
    "dorian drusilla edda edmund egon elara eldred elswyth emeric enoch esme evander fabian faye felix fergus finola florian freya gaius "
    "gareth gerda gideon giles greta gunnar hadrian halden hedda hesper hilda horace hugo ianthe idris ilse imogen ingram isolde ivo jago "
    "janus jarvis jocasta jorah jovan juno kaspar keir kelda kester kirsten lachlan laszlo leander leif leonie linus livia lorcan lucan "
    "ludo lysander mabel magnus maia malachi marius maude merrick milo mirela monroe mungo nadir nell nestor niamh nico nola octavia odo "
    "olaf oriel orson osric otto ottilie pascal penrose percy petra phelan phoebe piers quentin quilla ragnar ramona remy rhea roland "
    "romy roscoe rosalba rufus runa sable salome saskia selwyn severin sidony silas simeon sorrel stellan sybil tabitha talbot tamsin "
    "tarquin thaddeus theron thora tilda tobias torin ulric una ursula valda vanya verity viggo vivian walden wendel wilfred winifred "
    "wystan xanthe xavier yorick ysolde yvain zadok zelda zenon zora"
).split()

COLOR_NAMES = {
    "crimson": (220, 20, 60),
    "blue": (30, 60, 230),
    "green": (20, 160, 40),
    "orange": (255, 140, 0),
    "violet": (140, 40, 220),
    "turquoise": (0, 190, 190),
    "magenta": (240, 0, 200),
    "yellow": (240, 220, 0),
    "brown": (120, 70, 20),
    "black": (10, 10, 10),
    "gray": (128, 128, 128),
    "navy": (0, 0, 110),
}
