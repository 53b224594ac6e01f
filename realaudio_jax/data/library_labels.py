"""What the labels of some freely licensed sound libraries mean, in English without articles.

A label that another collection may well use otherwise has its set's folder before it.
"""

# label = text | another text; the labels are those of the OLPC Berklee, Cataclysm CC-Sounds,
# Sonic Pi, Blanket and ESC-10 collections.
TEXTS = """
556 auto rifle shot = automatic rifle shot | gunshot | rifle gunshot
rifle = rifle shot | gunshot
handgun = pistol shot | gunshot | handgun shot
genericgun = gunshot | gun firing
machinegun = machine gun burst | machine gun fire
shotgun = shotgun blast | gunshot
cc_sounds/launcher = grenade launcher firing
lasergun = laser gun shot | laser blast
acid sniper = acid spit shot
gene sting gun = dart gun shot
cc_sounds/bow = bow shot | arrow released from a bow
cc_sounds/empty = gun dry fire click
brass eject = bullet casings falling
fake gunfire = gunfire
bolt action rifle load = rifle bolt being loaded | loading a rifle
pocket pistol load = pistol being loaded | loading a pistol
shell load = shotgun shell being loaded
cc_sounds/default = gun being reloaded
explosion small = small explosion
explosion huge = huge explosion | massive explosion
explosion default = explosion
cc_sounds/ignition = fire igniting
walk barefoot = barefoot step | bare footstep
walk dirt = footstep on dirt
walk t concrete = footstep on concrete
walk t gravel = footstep on gravel | step on gravel
walk t rock floor = footstep on rock | footstep on a stone floor
walk t water sh = step in shallow water
walk water = step in water | splashing footstep
walk t carpet = footstep on carpet | soft footstep
walk t floor = footstep on a wooden floor | footstep
walk grass = footstep on grass
walk t grass long = footstep in long grass | rustling step in tall grass
walk metal = footstep on metal
clear obstacle = climbing over an obstacle
heels tile = high heels on tiles | footsteps of high heels
up stairs = footsteps up stairs
stairs metal = footsteps on metal stairs
small bash flesh = dull thud | small blow to a body
big bash flesh = heavy blow to a body | heavy thud
big cutting flesh = heavy blade cutting flesh
small cutting flesh = blade cutting flesh
big stabbing flesh = heavy stab
small stabbing flesh = knife stab
unarmed hit flesh = punch | fist hitting a body
monster melee hit = monster striking
big bash swing = heavy whoosh | heavy club swing
big cutting swing = sword swing whoosh
big stabbing swing = spear thrust whoosh
small stabbing swing = quick whoosh | knife swing
small cutting swing = blade whoosh | blade swing
unarmed swing = short whoosh | arm swing
hurt m = man grunting in pain
hurt f = woman crying out in pain
cc_sounds/death = dying breath
die scream = death scream
female scream = woman screaming
male scream = man screaming
female anguish heavy breathing = woman breathing heavily
male heavy breathing = man breathing heavily
female mad whisper = woman whispering
male mumbling = man mumbling
old man hesitant ranbling = old man rambling
creepy laugh = creepy laughter
speech zombie groan = zombie groan
zombie death = zombie dying
zombie gibbed = wet splatter | flesh bursting
bite hit = monster bite
bite miss = jaws snapping
fatigue high = exhausted panting
fatigue med = heavy breathing
fatigue low = light breathing
man yelling = man yelling
rebel yell = rebel yell
inaudible chatter = radio chatter
engine stop v = car engine stopping
engine stop combustion = engine stopping
engine start combustion = engine starting | car engine starting
motor start ping = electric motor starting
engine working internal v = car engine running, from inside
engine working internal combustion = engine running, from inside
engine working external v = car engine running
engine working external combustion = engine running
engine noise = engine noise
rear beeper = truck reverse beeper
horn medium = car horn | car honk
honking = car honking
hit vehicle = vehicle collision
gear shift = gear shift
open car door = car door opening
open car door internal = car door opening, from inside
open car trunk = car trunk opening
close car door = car door closing
close car door internal = car door closing, from inside
close car trunk = car trunk closing
close curtain = curtain closing
open curtain = curtain opening
close window = window closing
open window = window opening
close safe = metal safe door closing
open safe = metal safe door opening
close door = wooden door closing | door closing
open door = wooden door opening | door opening
door openclose = door opening and closing
door close = door closing
door shut = door shutting
closingdoor = door closing
close door fence = gate closing
open door fence = gate opening
open door metal = metal door opening
door hangar = hangar door
door slam tunnel = door slam in a tunnel
smash success brick = brick wall smashing
smash success ceramic = pottery smashing | ceramic breaking
smash success metal = metal crashing
smash success wood = wood smashing
smash success concrete = concrete breaking
smash success plastic = plastic breaking
smash success glass = glass breaking | glass smashing
smash success glass reinforced = reinforced glass breaking
smash success chain link = chain link fence crashing
smash glass = glass breaking
door smash success = wooden door breaking
wood smash success = wood breaking
window smash success = window breaking | glass breaking
window boarded smash success = boarded window breaking
window frame smash success = window frame breaking
smash fail wall = thump on a wall
smash fail brick = blow on brick
smash fail ceramic = knock on ceramic
smash fail metal = blow on metal | metal clang
smash fail wood = blow on wood | wooden thump
smash fail concrete = blow on concrete
smash fail plastic = blow on plastic
smash fail glass = knock on glass
smash fail glass reinforced = knock on reinforced glass
smash fail chain link = chain link fence rattling
door smash fail = bang on a wooden door
cc_sounds/electric = electric hum
machinery = machine hum
menu move = interface click
menu error = interface error sound
cc_sounds/alarm = alarm
cc_sounds/axe = axe chop
geiger high = fast geiger counter clicks
geiger low = slow geiger counter clicks
hacksaw = hacksaw cutting metal
oxytorch = blowtorch hiss
pickaxe = pickaxe strike
shovel = shovel digging
weather rainstorm = rainstorm
weather rainstorm inside = rainstorm heard from inside
weather snowstorm = snowstorm wind
weather portal storm = eerie storm
heavyrain = heavy rain
indoors rain = rain heard indoors
night rain = rain at night
flurries = cold wind with snow flurries
snowing = quiet snowy wind
thunder far = distant thunder
thunder near = thunder | close thunder
indoors = quiet room tone
underground = underground rumble
ambiance = room ambience
coffee-shop = coffee shop chatter | people talking in a cafe
fireplace = crackling fireplace | fire crackling
summer-night = crickets at night | crickets chirping on a summer night
storm = thunderstorm
waves = ocean waves | sea waves
birds = birds singing
crowd = crowd noise
hallwaynoises = hallway noises
hallwaytalking = people talking in a hallway
driving = driving car | car driving past
boston subway = subway train
dog = dog barking
dog bark = dog bark | dog barking
rooster = rooster crowing
baby cry = baby crying
person sneeze = sneeze | person sneezing
clock tick = clock ticking
chainsaw = chainsaw
helicopter = helicopter
rain = rain | rain falling
sea waves = sea waves | waves on the shore
fire crackling = fire crackling | crackling fire
wind = wind | wind blowing
mooo = cow mooing
quack = duck quacking
horse = horse whinny
pig impression = pig grunting
animal vocal = animal call
bird = bird chirp
chirping = chirping
clap = hand clap
flush = toilet flushing
fume = spray hiss
mouthnoises = mouth noises
femalevoice aa = woman singing ah
femalevoice oo = woman singing ooh
femalevoices aa = women singing ah
femalevoices oo = women singing ooh
malevoice aa = man singing ah
malevoice oo = man singing ooh
malevoices aa = men singing ah
malevoices oo = men singing ooh
berklee_olpc/kick = kick drum hit
kickstand = bicycle kickstand
double kick = double kick drum hit
cym = cymbal hit
cymbolscratch = scratched cymbal
spin cym = spinning cymbal
maybe fryingpan = frying pan
woodblocks supposedly = woodblocks
berklee_olpc/sub = deep bass tone
berklee_olpc/ring = ringing
can crush foot = can crushed underfoot
sodacancrunch = soda can crushed
sodacancrunch loudshort = soda can crushed
red bul = can
red bull = can
bbs cd = pellets on a disc
metal ground = metal dropped on the ground
piano low = low piano note
piano = piano note
piano ab = piano note
piano db = piano note
piano eb = piano note
prep piano = prepared piano
sodacanroll = soda can rolling
"""

# beginnings of the names of the Sonic Pi samples
SONIC_PI_TEXTS = """
ambi = ambient texture
bass = synth bass note
bd = bass drum hit | kick drum
drum cymbal = cymbal hit
drum snare = snare drum hit
drum splash = splash cymbal hit
drum tom = tom drum hit
drum bass = bass drum hit
elec = electronic blip
elec bell = electronic bell
elec snare = electronic snare hit
elec cymbal = electronic cymbal
glitch = glitch sound
glitch robot = robot glitch voice
guit = guitar chord
hat = hi-hat hit
loop = drum loop
loop breakbeat = breakbeat drum loop
loop industrial = industrial drum loop
mehackit phone = phone bleep
mehackit robot = robot sound
misc burp = burp
misc cineboom = cinematic boom
misc crow = crow call | crow cawing
perc = percussion hit
perc bell = bell
perc door = door percussion hit
perc snap = finger snap
perc swash = swash
perc swoosh = swoosh
ride = ride cymbal
sn = snare drum hit
tabla = tabla hit | tabla drum
vinyl backspin = vinyl backspin
vinyl hiss = vinyl record hiss
vinyl rewind = vinyl rewind
"""

# words written together or wrongly in the labels
REPAIRS = dict(
    pair.split('=')
    for pair in (
        'blackboardhit=blackboard hit;doorslam=door slam;glassbreak=glass breaking;'
        'highfreqmetal=high metal;loudmetal=loud metal;softmetal=soft metal;'
        'trashcandragging=trash can dragging;airblower=air blower;aircompressor=air compressor;'
        'anklung=angklung;asprin=aspirin;asthmainhaler=asthma inhaler;ballbearing=ball bearing;'
        'ballbearings=ball bearings;balloonbass=balloon bass;balloondrumming=balloon drumming;'
        'balloonrubbing=balloon rubbing;barel=barrel;bbs=pellets;boardslam=board slam;'
        'bottlecap=bottle cap;bowedglass=bowed glass;bowlbang=bowl bang;bulbpop=bulb pop;'
        'cakelid=cake lid;carboardbox=cardboard box;carddeck=card deck;ceramictile=ceramic tile;'
        'chainswoosh=chain swoosh;chaindrop=chain drop;chimeballs=chime balls;'
        'chimesmajthird=chimes;coinspin=coin spinning;drymetalhit=dry metal hit;'
        'gargabe=garbage;garbagecan=garbage can;digeradoo=didgeridoo;digeridoo=didgeridoo;'
        'glas=glass;glassbeads=glass beads;glasshit=glass hit;hollowhitsoft=soft hollow hit;'
        'knifesharpener=knife sharpener;liddrop=lid drop;lidhit=lid hit;'
        'lockersqueak=locker squeak;metalichit=metallic hit;machinedrill=machine drill;'
        'metalhit=metal hit;metalpipe=metal pipe;metalscrape=metal scrape;'
        'metalsqueek=metal squeak;squeek=squeak;squeel=squeal;moremetal=metal clatter;'
        'packingtape=packing tape;pillrattle=pill rattle;accordian=accordion;'
        'scraatch=scratch;powerdrill=power drill;prep=prepared;reverbslap=slap in a large room;'
        'rubberband=rubber band;sandbag=sand bag;scrapingstick=scraping stick;'
        'smalltemplebell=small temple bell;templebell=temple bell;'
        'spinningplate=spinning plate;styrofoamnoises=styrofoam noises;tincan=tin can;'
        'tinklingchain=tinkling chain;tinybell=tiny bell;trashcan=trash can;finyl=vinyl;'
        'vinly=vinyl;waterbottle=water bottle;waterbubbles=water bubbles;'
        'waterpump=water pump;wirewhisk=wire whisk;woodenclaps=wooden claps;'
        'yogaballs=yoga balls;shortscrape=short scrape;rhythmicloop=rhythmic loop'
    ).split(';')
)
DROPPED_WORDS = {'hasclipping', 'verycompressed', 'fromsametrack', 'filtered', 'loudshort'}
