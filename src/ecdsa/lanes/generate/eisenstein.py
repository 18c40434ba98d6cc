# Finds the co-Z addition path through the 11 digit classes of Z[w]/8, and the tables of digits.
# Writes eisenstein.rs: python3 generate/eisenstein.py > k256/eisenstein.rs
import hashlib
U=[(1,0),(0,1),(-1,-1),(-1,0),(0,-1),(1,1)]   # 1, w, w^2, -1, -w, -w^2
def mul(p,q):  # (a+bw)(c+dw), w^2=-1-w
    a,b=p;c,d=q; return (a*c-b*d, a*d+b*c-b*d)
def N(p): return p[0]**2-p[0]*p[1]+p[1]**2
def orb(p): return min(mul(u,p) for u in U)
best={}
for a in range(-6,7):
    for b in range(-6,7):
        r=(a%8,b%8)
        if r==(0,0): continue
        if r not in best or N((a,b))<best[r]: best[r]=N((a,b))
def covers(path):
    s=set()
    for e in path:
        for u in U:
            d=mul(u,e); s.add((d[0]%8,d[1]%8))
    return len(s)==63
good=None
minorb=set()
for a in range(-6,7):
    for b in range(-6,7):
        r=(a%8,b%8)
        if r!=(0,0) and N((a,b))==best[r]: minorb.add(orb((a,b)))
import sys
sys.setrecursionlimit(10000)
sols=[]
def dfs(path,units,seen):
    if len(path)==11:
        if covers(path): sols.append((path[:],units[:]))
        return
    for i,u in enumerate(U):
        e=(path[-1][0]+u[0],path[-1][1]+u[1]); o=orb(e)
        if o not in minorb or o in seen: continue
        path.append(e); units.append(i); seen.add(o)
        dfs(path,units,seen)
        path.pop(); units.pop(); seen.discard(o)
dfs([(1,0),(2,0)],[],{orb((1,0)),orb((2,0))})
# cost: unit changes: rotation costs a multiplication (79), sign change ~20
def cost(units):
    c=0; cur=0
    for u in units:
        rel=[k for k in range(6) if mul(U[cur],U[k])==U[u]][0]
        c+= (79 if rel%3 else 0) + (20 if rel>=3 else 0); cur=u
    return c
sols.sort(key=lambda s:cost(s[1]))
path,units=sols[0]
print(len(sols),"paths; best",path,units,cost(units),file=sys.stderr)
assert covers(path)
# steps: relative unit index
rel=[];cur=0
for u in units:
    k=[k for k in range(6) if mul(U[cur],U[k])==U[u]][0]; rel.append(k); cur=u
luts=[0]*64; lutc=[0]*64
for i in range(8):
    for j in range(8):
        idx=i|j<<3
        if (i,j)==(0,0): luts[idx]=0x80; continue
        c=[]
        for t,e in enumerate(path):
            for k,u in enumerate(U):
                d=mul(u,e)
                if (d[0]%8,d[1]%8)==(i,j): c.append((N(d),t,k,d))
        nrm,t,k,d=min(c)
        # U[k] = w^(k%3) * (-1 if k>=3)
        ca,cb=(i-d[0])//8,(j-d[1])//8
        assert ca in(0,1) and cb in(0,1) and (i or ca==0) and (j or cb==0)
        assert i-d[0]==8*ca and j-d[1]==8*cb
        luts[idx]=(t*4+k%3)|(0x40 if k>=3 else 0); lutc[idx]=ca|cb<<1
p=2**256-2**32-977
n=0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G=(0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)
def padd(P,Q):
    if P is None: return Q
    if Q is None: return P
    if P[0]==Q[0]:
        if (P[1]+Q[1])%p==0: return None
        l=3*P[0]*P[0]*pow(2*P[1],-1,p)%p
    else: l=(Q[1]-P[1])*pow(Q[0]-P[0],-1,p)%p
    x=(l*l-P[0]-Q[0])%p; return (x,(l*(P[0]-x)-P[1])%p)
def pmul(k,P):
    R=None
    while k:
        if k&1: R=padd(R,P)
        P=padd(P,P); k>>=1
    return R
t=int.from_bytes(hashlib.sha256(b"ifma-ecdsa start point").digest(),'big')%n
T=pmul(t,G)
lim=lambda v,c=5:", ".join(hex((v>>(52*i))&(2**52-1)) for i in range(c))
print("//! Digits are Eisenstein integers a + b*w, w = lambda; written by\n//! ../generate/eisenstein.py: do not edit.")
print("/// Multiples of P in the table, in the order they are computed: "+str(path)+" as (a, b).")
print(f"pub(crate) const ENTRIES: usize = {len(path)};")
print("/// Entry i+2 = entry i+1 + unit*P; the unit changes from the last one by w^(k%3) * (-1 if k >= 3).")
print(f"pub(crate) const STEPS: [u8; {len(rel)}] = {rel};")
print("/// Index a mod 8 | (b mod 8) << 3 -> entry*4 + rotation, 0x40 = negative, 0x80 = zero digit.")
print(f"pub(crate) const LUT: [u8; 64] = {luts};")
print("/// Same index -> carries into the next window: a | b << 1.")
print(f"pub(crate) const LUT_CARRY: [u8; 64] = {lutc};")
print("/// Start point T = t*G, t = sha256(\"ifma-ecdsa start point\") mod n.")
print(f"pub(crate) const TX: [u64; 5] = [{lim(T[0])}];\npub(crate) const TY: [u64; 5] = [{lim(T[1])}];")
print("/// -t * 2^126 mod n")
print(f"pub(crate) const T_CORR: [u64; 5] = [{lim((-t<<126)%n)}];")
b=0x7ae96a2b657c07106e64479eac3434e99cf0497512f58995c1396c28719501ee
print(f"pub(crate) const BETA2: [u64; 5] = [{lim(b*b%p)}];")
