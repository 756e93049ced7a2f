#include "textflag.h"

// func clone3(args *cloneArgs, size, entry, work uintptr) (pid uintptr, errno syscall.Errno)
//
// The kernel keeps every register but R0 for the child too, so that it finds
// there what it needs on a stack that is still empty. Entry takes its argument
// as Go functions do: in R0.
TEXT ·clone3(SB), NOSPLIT, $0-48
	MOVD args+0(FP), R0
	MOVD size+8(FP), R1
	MOVD entry+16(FP), R20
	MOVD work+24(FP), R21
	MOVD $435, R8 // clone3
	SVC
	CMN  $4095, R0
	BCS  failed
	CBZ  R0, child
	MOVD R0, pid+32(FP)
	MOVD ZR, errno+40(FP)
	RET

failed:
	NEG  R0, R0
	MOVD ZR, pid+32(FP)
	MOVD R0, errno+40(FP)
	RET

child:
	MOVD ZR, R29
	MOVD R21, R0
	CALL (R20)
	BRK  // entry does not return
